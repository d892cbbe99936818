"""How soon `soup` answers, each as a ratio to `soup --help` of the same run.

    python benchmarks/startup.py                  # make bench-startup: a minute on 2 cores
    python benchmarks/startup.py --rounds 9

Every answer is a process of its own; all take turns, so that a noisy machine is as noisy to all, and ratios are of
medians. `processor` is the same ratio of the least processor time, which depends less on what else runs. The last
column says whether the process imported torch. A rank whose scores are kept has nothing to compute.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from side_by_side import ROOT, compiled, in_turns, processor_seconds
from torch import nn

TARGET, HELP_TARGET = 2.5, 0.1  # of soup --help; soup --help of import torch
RUN = "import sys; from soupcli.cli.app import main; sys.argv[0] = 'soup'; main()"
LOOK = f"""
import atexit, os, sys
atexit.register(lambda: os.write(2, b"\\ntorch: " + str("torch" in sys.modules).encode()))
{RUN}
"""
NET = "from torch import nn\n\ndef build():\n    return nn.Linear(8, 3)\n"
RECIPE = 'model: {python: "net.py:build"}\nval:\n  val: {arrays: val.safetensors}\nmetric: accuracy\n'


class Answer(NamedTuple):
    """A command, and the exit code that it ends with."""

    label: str
    words: tuple[str, ...]
    code: int = 0


RANK = ("rank", "--ckpts", "runs/*/", "--val")
HELP = Answer("soup --help", ("--help",))
ANSWERS = (
    Answer("a typo in a path", ("rank", "--ckpts", "rums/*/", "--val", "val"), 2),
    Answer("an unknown set", (*RANK, "vall"), 2),
    Answer("greedy --dry-run", ("greedy", "--ckpts", "runs/*/", "--val", "val", "--out", "new", "--dry-run")),
    Answer("init", ("init", "--out", "found.yaml", "--force")),
    Answer("schema recipe", ("schema", "recipe")),
    Answer("verify", ("verify", "soup")),
    Answer("report", ("report", "soup/soup.json", "rank.json")),
    Answer("plot", ("plot", "soup/soup.json", "rank.json", "--out", "plot.svg", "--quiet")),
    Answer("rank, all scores kept", (*RANK, "val")),
)


def make_family(folder: Path, runs: int = 8) -> None:
    """Linear networks with a recipe and a set; ranked and souped once, so that there are scores and reports."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 8, generator=generator)
    save_file({"inputs": inputs, "labels": inputs[:, :3].argmax(dim=1)}, folder / "val.safetensors")
    (folder / "net.py").write_text(NET)
    (folder / "soup.yaml").write_text(RECIPE)
    torch.manual_seed(0)
    start = nn.Linear(8, 3).state_dict()
    for number in range(runs):
        (folder / f"runs/{number}").mkdir(parents=True)
        noisy = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in start.items()}
        save_file(noisy, folder / f"runs/{number}/model.safetensors")
    answered(folder, Answer("", (*RANK, "val", "--report", "rank.json")))
    answered(folder, Answer("", ("greedy", "--ckpts", "runs/*/", "--val", "val", "--quiet")))


def note_least(least: dict[str, float], label: str, work: Callable[[], object]) -> None:
    """Notes in `least` the least processor time that a process took for this answer."""
    before = processor_seconds()
    work()
    taken = processor_seconds() - before
    least[label] = min(taken, least.get(label, taken))


def answered(folder: Path, answer: Answer, code: str = RUN) -> str:
    """What the command says on stderr. Raises RuntimeError if it ends with another exit code."""
    environment = os.environ | {"SOUP_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    environment |= compiled(folder / "compiled")
    words = [sys.executable, "-c", code, *answer.words]
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != answer.code:
        raise RuntimeError(f"soup {' '.join(answer.words)} ended with {ran.returncode}:\n{ran.stderr}")
    return ran.stderr


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_family(folder)
        least: dict[str, float] = {}
        torch_alone, of_help, *seconds = in_turns(
            options.rounds,
            partial(subprocess.run, [sys.executable, "-c", "import torch"], check=True),
            *(
                partial(note_least, least, answer.label, partial(answered, folder, answer))
                for answer in (HELP, *ANSWERS)
            ),
        )
        print(f"import torch {torch_alone:.2f} s; soup --help {of_help:.3f} s", end=", ")
        print(f"{of_help / torch_alone:.2f} of it (target: at most {HELP_TARGET})\n")
        print(f"{'answer':24}  seconds  of soup --help  processor  target  imports torch")
        for answer, taken in zip(ANSWERS, seconds, strict=True):
            imported = answered(folder, answer, LOOK).rpartition("torch: ")[2]
            busy = least[answer.label] / least[HELP.label]
            print(f"{answer.label:24} {taken:8.2f} {taken / of_help:15.1f} {busy:10.1f}  {TARGET:6}  {imported}")


if __name__ == "__main__":
    main()
