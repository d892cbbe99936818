"""Mixing the end of a run against decaying its learning rate, into docs/results.md.

    python benchmarks/decay.py                            # make results-decay: 3 seeds, about ten minutes of one core
    python benchmarks/decay.py --seeds 0 --folder runs/   # one seed; the page is not written; continues

benchmarks/char_gpt.py trains the networks. Each cell is the report of the command that the page shows.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import char_gpt
import torch
from results import PAGE, heading, replaced, row

import soupcli
from soupcli.soups.decay import SHAPES

SEEDS = (0, 1, 2)
WINDOWS = [4, 8, 16, 32]
MIXED = ["linear", "1-sqrt", "cosine", "ema:0.8"]
DECAYED = ["linear", "1-sqrt"]
RECIPE = """\
model: {python: "char_gpt.py:build"}
val:
  held-out: {python: "char_gpt.py:held_out", metric: nll}
"""
Cells = dict[tuple[str, int], float]  # line, window -> nats


def made(base: Path, seed: int) -> Path:
    """The folder of a seed's networks, which are trained if they are not there."""
    folder = base / f"char-gpt-{seed}"
    if not (folder / "soup.yaml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        train, other = char_gpt.sources()
        char_gpt.write_held_out(other, folder)
        shutil.copy(Path(char_gpt.__file__), folder)
        char_gpt.train(train, seed, folder, {shape: SHAPES[shape] for shape in DECAYED}, WINDOWS)
        (folder / "soup.yaml").write_text(RECIPE)
    return folder


def measured(folder: Path) -> Cells:
    """Nats a character on the held-out files, of every line and window."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        cells = {("last checkpoint", n): mixed(1, "linear") for n in WINDOWS}
        cells |= {(f"mixed, {shape}", n): mixed(n, shape) for shape in MIXED for n in WINDOWS}
        scores = soupcli.evaluate("decayed/*/", val="held-out").scores
        for shape, n in ((shape, n) for shape in DECAYED for n in WINDOWS):
            value = scores.get(f"decayed/{shape}-{n}", {}).get("held-out", {}).get("nll")
            if value is not None:
                cells[f"rate decayed, {shape}", n] = value
        return cells
    finally:
        os.chdir(before)


def mixed(last: int, shape: str) -> float:
    """The score of `soup mix` of the last checkpoints."""
    decay = shape if last > 1 else None
    return soupcli.mix("constant/checkpoint-*/", last=last, decay=decay, val="held-out").scores["held-out"]


def page_of(seeds: Sequence[Cells]) -> str:
    """The table in Markdown: mean over seeds with its standard error, then the difference from the real decay."""
    sizes = [f"N = {n}" for n in WINDOWS]
    lines = list(dict.fromkeys(line for cells in seeds for line, _ in cells))
    text = heading("weights", sizes)
    text += [row(label(line, seeds), [mean(of_seeds(seeds, line, n)) for n in WINDOWS]) for line in lines]
    text += ["", f"Less the rate decayed linearly over the same window, mean over {len(seeds)} seeds:", ""]
    text += heading("weights", sizes)
    real = "rate decayed, linear"
    text += [
        row(label(line, seeds), [mean(of_seeds(seeds, line, n, less=real), sign="+") for n in WINDOWS])
        for line in lines
        if line != real
    ]
    return "\n".join([*text, ""])


def label(line: str, seeds: Sequence[Cells]) -> str:
    """The line, and over how many seeds it is if these are not all."""
    count = len(of_seeds(seeds, line, WINDOWS[0]))
    return line if count == len(seeds) else f"{line} ({count} seeds)"


def of_seeds(seeds: Sequence[Cells], line: str, n: int, less: str | None = None) -> list[float]:
    """A cell of each seed that has it, less that of another line."""
    return [of[line, n] - (of[less, n] if less is not None else 0.0) for of in seeds if (line, n) in of]


def mean(numbers: Sequence[float], sign: str = "") -> str:
    """With the standard error over seeds."""
    if len(numbers) < 2:
        return f"{statistics.mean(numbers):{sign}.4f}"
    error = statistics.stdev(numbers) / math.sqrt(len(numbers))
    return f"{statistics.mean(numbers):{sign}.4f} ± {error:.4f}"


def main() -> None:
    """Trains, measures, prints the table, and puts it into the page if all seeds were measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--folder", type=Path, help="where networks are made and kept (default: a temporary folder)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        base = (options.folder or Path(temporary)).resolve()
        seeds = []
        for seed in options.seeds:
            seeds.append(measured(made(base, seed)))
            print(f"seed {seed}: done", file=sys.stderr, flush=True)
    text = page_of(seeds)
    print(text)
    if tuple(options.seeds) == SEEDS:
        PAGE.write_text(replaced(PAGE.read_text("utf-8"), "decay", text), "utf-8")


if __name__ == "__main__":
    main()
