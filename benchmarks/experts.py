"""A soup of experts of three texts, beside greedy and the mean, into docs/results.md.

    python benchmarks/experts.py                          # make results-experts: 3 seeds, minutes
    python benchmarks/experts.py --seeds 0 --folder runs/ # one seed; the page is not written; continues

The network is that of benchmarks/char_gpt.py, trained on Python's standard library, then fine-tuned nine times on a mix
of three texts that come with Python: its library, the C headers, and the prose of its help. Each is judged by the nats
of the next character. Figures are of sets that took no part in the choice.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import char_gpt
import torch
from decay import mean
from results import PAGE, heading, replaced, row
from safetensors.torch import save_file
from torch import Tensor

import soupcli

SEEDS = (0, 1, 2)
TEXTS = ("python", "c", "prose")
RUNS, STEPS, RATES = 9, 150, (1e-3, 2e-3, 4e-3)
SHARE = 0.8  # of the text that a run is mostly trained on
SELECTING, TEST = 600, 1_500
RECIPE = 'model: {python: "char_gpt.py:build_last"}\nmetric: nll\nbatch_size: 100\nval:\n' + "".join(
    f"  {name}{of}: {{arrays: {name}{of}.safetensors}}\n" for of in ("", "-test") for name in TEXTS
)
Scores = dict[str, float]  # set -> nats


def texts() -> dict[str, tuple[Tensor, Tensor]]:
    """Of each text nine tenths to train on and a tenth to judge by, as classes of characters."""
    library, headers = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("include"))
    parts = {"python": char_gpt.sources(), "c": char_gpt.files_of(sorted(headers.rglob("*.h")))}
    topics: dict[str, object] = {}
    exec((library / "pydoc_data/topics.py").read_text("utf-8"), topics)
    prose = topics["topics"]
    assert isinstance(prose, dict)
    parts["prose"] = char_gpt.parts_of([prose[name].encode() for name in sorted(prose)])
    return parts


def made(base: Path, seed: int) -> Path:
    """The folder of a seed's networks and sets, which are made if they are not there."""
    folder = base / f"experts-{seed}"
    if (folder / "soup.yaml").exists():
        return folder
    found = texts()
    start = base / "start"
    if not (start / "model.safetensors").exists():
        char_gpt.train(found["python"][0], 0, start, {}, [])
        shutil.copytree(start / f"constant/checkpoint-{char_gpt.STEPS}", start, dirs_exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(char_gpt.__file__), folder)
    for number, name in enumerate(TEXTS):
        write_sets(folder, name, found[name][1], 100 * seed + number)
    for run in range(RUNS):
        own = TEXTS[run % 3]
        shares = [(found[name][0], SHARE if name == own else (1 - SHARE) / 2) for name in TEXTS]
        char_gpt.fine_tune(start, folder / f"runs/{run}-{own}", shares, STEPS, RATES[run // 3], 100 * seed + run)
    (folder / "soup.yaml").write_text(RECIPE)
    return folder


def write_sets(folder: Path, name: str, ids: Tensor, seed: int) -> None:
    """Windows and the character after each, drawn without repetition: for the choice, and for the test."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randperm(len(ids) - char_gpt.CONTEXT - 1, generator=generator)[: SELECTING + TEST]
    windows = torch.stack([ids[start : start + char_gpt.CONTEXT + 1] for start in starts]).long()
    for of, part in (("", windows[:SELECTING]), ("-test", windows[SELECTING:])):
        inputs, labels = part[:, :-1].contiguous(), part[:, -1].contiguous()
        save_file({"inputs": inputs, "labels": labels}, folder / f"{name}{of}.safetensors")


def measured(folder: Path) -> tuple[dict[str, Scores], str]:
    """Nats on each test set of every line, and what the experts were."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        val = [*TEXTS, *(f"{name}-test" for name in TEXTS)]
        goal = ",".join(f"{name}=1" for name in TEXTS)
        experts = soupcli.greedy("runs/*/", val=val, objective=goal, strategy="experts", with_uniform=True)
        greedy = soupcli.greedy("runs/*/", val=val, objective=goal, holdout=0.5)
        report, plain = experts.report, greedy.report
        lines = {
            "best ingredient": report.best,
            "uniform": report.uniform,
            "greedy": plain.soup,
            "experts": report.soup,
        }
        scores = {line: tests(of.scores) for line, of in lines.items() if of is not None}
        assert report.experts is not None and report.search is not None
        groups = "; ".join(f"{' and '.join(of.sets)}: {of.expert}" for of in report.experts.groups)
        mixed = " + ".join(f"{w:.2g} {path}" for w, path in zip(experts.weights, experts.members, strict=True))
        return scores, f"{groups}; {mixed}, of {report.search.evaluations} tried; greedy kept {len(greedy.members)}"
    finally:
        os.chdir(before)


def tests(scores: object) -> Scores:
    """The nats on the test sets, and their mean."""
    assert isinstance(scores, dict)
    found = {name: float(scores[f"{name}-test"]["nll"].value) for name in TEXTS}
    return {**found, "mean": statistics.mean(found.values())}


def page_of(seeds: Sequence[tuple[dict[str, Scores], str]]) -> str:
    """The table in Markdown: mean over seeds with its standard error, then gains, then what was mixed."""
    columns = [*TEXTS, "mean"]
    lines = list(seeds[0][0])
    text = heading("weights", columns)
    text += [row(line, [mean([of[line][name] for of, _ in seeds]) for name in columns]) for line in lines]
    text += ["", f"Less the best ingredient (below 0 is better), seeds: {len(seeds)}.", ""]
    text += heading("weights", columns)
    best = lines[0]
    text += [
        row(line, [mean([of[line][name] - of[best][name] for of, _ in seeds], sign="+") for name in columns])
        for line in lines[1:]
    ]
    return "\n".join([*text, "", *(f"- seed {number}: {said}" for number, (_, said) in enumerate(seeds)), ""])


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
        PAGE.write_text(replaced(PAGE.read_text("utf-8"), "experts", text), "utf-8")


if __name__ == "__main__":
    main()
