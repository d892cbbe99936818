"""Time and memory as there is more of something: ingredients, tensors, rows of text, pictures, classes.

    python benchmarks/growth.py                              # make bench-growth: some minutes on 2 cores
    python benchmarks/growth.py --full                       # up to 2,000 ingredients, 100,000 pictures: ten minutes
    python benchmarks/growth.py --works uniform inspect --sizes 250 500 1000

Each work is a process of its own, measured in processor time, which other programs on the machine disturb little, and
in peak memory. What the same work takes with next to nothing (mostly the import of torch) is subtracted. The exponent
is that of the last doubling: 1 is linear. Inputs are made on the spot and removed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from side_by_side import ROOT

from soupcli.datasets import images
from soupcli.datasets.holdout import split_by_class
from soupcli.datasets.rows import read_rows
from soupcli.recipe.sets import ImagesSet

RANK = ("rank", "--ckpts", "runs/*/", "--val", "val")
NET = "from torch import nn\n\ndef build():\n    return nn.Linear(8, 3)\n"
RECIPE = 'model: {python: "net.py:build"}\nval:\n  val: {arrays: val.safetensors}\nmetric: accuracy\n'
PIXEL = bytes.fromhex(  # a PNG of one pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd"
    "8db00000000049454e44ae426082"
)


def family(count: int) -> None:
    """`count` linear networks around one start, a recipe and a set of 100 examples."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 8, generator=generator)
    save_file({"inputs": inputs, "labels": inputs[:, :3].argmax(dim=1)}, "val.safetensors")
    Path("net.py").write_text(NET)
    Path("soup.yaml").write_text(RECIPE)
    start = {"weight": torch.randn(3, 8, generator=generator), "bias": torch.randn(3, generator=generator)}
    for number in range(count):
        Path(f"runs/{number}").mkdir(parents=True)
        noisy = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in start.items()}
        save_file(noisy, f"runs/{number}/model.safetensors")


def kept(count: int) -> None:
    """The same, ranked once: every score is kept."""
    family(count)
    subprocess.run(soup(*RANK), check=True, stdout=subprocess.DEVNULL)


def tensors(count: int) -> None:
    """Two networks of `count` small tensors, named as those of deep networks."""
    for run_ in range(2):
        Path(f"runs/{run_}").mkdir(parents=True)
        shift = 0.01 * run_
        state = {f"blocks.{n // 4}.part{n % 4}.weight": torch.arange(4.0) + n % 7 + shift for n in range(count)}
        save_file(state, f"runs/{run_}/model.safetensors")


def other_names(count: int) -> None:
    """Two files of `count` small tensors, without one name in common."""
    for run_ in range(2):
        Path(f"runs/{run_}").mkdir(parents=True)
        words = random.Random(run_)
        names = {"".join(words.choices("abcdefghij", k=12)) + ".weight" for _ in range(count)}
        save_file({name: torch.ones(1) for name in sorted(names)}, f"runs/{run_}/model.safetensors")


def rows(count: int) -> None:
    """A table of `count` sentences with labels."""
    lines = (f'"sentence {n} of the table, number {n * 7919 % 1000003}",{n % 3}\n' for n in range(count))
    Path("rows.csv").write_text("sentence,label\n" + "".join(lines))


def pictures(count: int) -> None:
    """Folders of ten classes with `count` pictures."""
    for number in range(count):
        folder = Path(f"val/class{number % 10}")
        if number < 10:
            folder.mkdir(parents=True)
        (folder / f"{number}.png").write_bytes(PIXEL)


def classes(count: int) -> None:
    """`count` folders with two pictures each."""
    for number in range(count):
        folder = Path(f"val/n{number:08d}")
        folder.mkdir(parents=True)
        for name in "ab":
            (folder / f"{name}.png").write_bytes(PIXEL)


def soup(*words: str) -> list[str]:
    """The command line of `soup` with these words."""
    return [sys.executable, "-m", "soupcli", *words, "--quiet"]


def read_table() -> object:
    """Every row of the table, and which of them are held out."""
    labels = torch.tensor([int(row["label"]) for row in read_rows(Path("rows.csv"), ("sentence", "label"))])
    return split_by_class(labels, 0.5, seed=0)


def find_pictures() -> object:
    """Pictures, classes and the set's fingerprint; nothing is decoded."""
    spec = ImagesSet(images=Path("val"))
    found = images.find(spec)
    return images.fingerprint(spec), split_by_class(found.labels, 0.5, seed=0)


class Work(NamedTuple):
    """What is done with what is made, and with how many."""

    make: Callable[[int], None]
    do: Callable[[], object] | list[str]  # in this process, or a command
    sizes: Sequence[int]  # of --full


PART = 4  # of the sizes of --full is measured without it
WORKS = {
    "uniform": Work(family, soup("uniform", *RANK[1:3]), (500, 1000, 2000)),
    "rank": Work(family, soup(*RANK), (500, 1000, 2000)),
    "rank, kept": Work(kept, soup(*RANK), (500, 1000, 2000)),
    "greedy": Work(family, soup("greedy", *RANK[1:]), (500, 1000, 2000)),
    "inspect": Work(family, soup("inspect", *RANK[1:3]), (500, 1000, 2000)),
    "uniform, tensors": Work(tensors, soup("uniform", *RANK[1:3]), (5000, 10000, 20000)),
    "rows of text": Work(rows, read_table, (250_000, 500_000, 1_000_000)),
    "pictures": Work(pictures, find_pictures, (25_000, 50_000, 100_000)),
    "classes": Work(classes, find_pictures, (1250, 2500, 5000)),
    "inspect, other names": Work(other_names, soup("inspect", *RANK[1:3]), (5000, 10000, 20000)),
    "inspect, tensors": Work(tensors, soup("inspect", *RANK[1:3]), (5000, 10000, 20000)),
}


def child(name: str, size: int) -> None:
    """Make and do one work in this folder; print its processor time and the peak memory of what was done."""
    work = WORKS[name]
    if os.fork() == 0:  # what is made leaves no memory behind
        work.make(size)
        os._exit(0)
    if os.wait()[1]:
        raise SystemExit(f"{name}: nothing was made")
    seconds, kilobytes = command_cost(work.do) if isinstance(work.do, list) else cost_here(work.do)
    sys.stderr.write(f"\n{json.dumps([seconds, kilobytes / 1000])}")


# Runs a command from a process with little memory: to Linux what its parent held is part of its own peak.
LAUNCH = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def command_cost(words: list[str]) -> tuple[float, int]:
    """Processor seconds and peak kilobytes of a command."""
    ran = subprocess.run([sys.executable, "-c", LAUNCH, *words], stdout=subprocess.PIPE, check=True)
    status, seconds, kilobytes = json.loads(ran.stdout)
    if status:
        raise SystemExit(f"{' '.join(words)} ended with {status}")
    return seconds, kilobytes


def cost_here(work: Callable[[], object]) -> tuple[float, int]:
    """Processor seconds of a work in this process, and its peak kilobytes."""
    began = os.times()
    work()
    ended = os.times()
    peak = next(int(x.split()[1]) for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return ended.user + ended.system - began.user - began.system, peak


def measured(name: str, size: int) -> tuple[float, float]:
    """Seconds and megabytes of a work, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SOUP_CACHE": f"{folder}/cache", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, __file__, "--child", name, str(size)]
        ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(f"{name} {size}:\n{ran.stderr}")
        seconds, megabytes = json.loads(ran.stderr.rpartition("\n")[2])
        return seconds, megabytes


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of the last step: how the values grow with the sizes."""
    before, last = (max(value, 1e-3) for value in values[-2:])
    return math.log(last / before) / math.log(sizes[-1] / sizes[-2])


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--sizes", nargs="+", type=int, help="of every work (default: its own)")
    parser.add_argument("--full", action="store_true", help=f"sizes that people have (default: 1/{PART} of them)")
    parser.add_argument("--child", nargs=2, metavar=("WORK", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    print(
        "work                     sizes                    seconds above the least    exponent    MB above    exponent"
    )
    for name in options.works:
        sizes = options.sizes or [size // (1 if options.full else PART) for size in WORKS[name].sizes]
        least = min(measured(name, 10) for _ in range(2))  # the first run may compile modules
        found = [measured(name, size) for size in sizes]
        seconds, megabytes = ([one[k] - least[k] for one in found] for k in (0, 1))
        shown = [" ".join(f"{n:>7}" for n in sizes), " ".join(f"{s:7.2f}" for s in seconds)]
        memory = " ".join(f"{m:5.0f}" for m in megabytes)
        rates = exponent(sizes, seconds), exponent(sizes, megabytes)
        print(f"{name:20} {shown[0]}   {shown[1]}   {rates[0]:5.2f}   {memory}   {rates[1]:5.2f}", flush=True)


if __name__ == "__main__":
    main()
