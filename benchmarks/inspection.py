"""`soup inspect` of 8 and of 32 ingredients: peak memory, and time against reading every byte once.

    python benchmarks/inspection.py                       # make bench-inspect: 60 MB each, a minute or two
    python benchmarks/inspection.py --megabytes 344 --counts 2 8     # the size of a ViT-B/32

Ratios alone mean something: both sides run in turns, on files that were just written, and of each the least of the
rounds is taken. Memory is the peak of a process that inspects, as Linux counts it, less that of one that inspects two
ingredients of a few bytes. Time is processor time and wall, of the command after Python has started. What it takes
whatever the files is given beside, as the inspection of the small ones. What is only shown needs no hashes; with
`--json` the report has them. The read is into memory that begins with a page, the fastest there is (see `paged`); how
`cat` reads the same files is beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from soupcli.files.reading import paged

ROOT = Path(__file__).parent.parent
WIDE = 1024
CHUNK = 1 << 20


class Cost(NamedTuple):
    """What a work took: processor seconds of all threads, seconds by the clock, peak bytes."""

    processor: float
    wall: float
    peak: int = 0


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--counts", type=int, nargs=2, default=(8, 32))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "tiny", 2, layers=1, wide=8)
        layers = max(1, options.megabytes * 10**6 // (WIDE * WIDE * 4))
        write(folder / "runs", max(options.counts), layers=layers, wide=WIDE)
        empty = inspected(folder / "tiny", 2, "--quiet")
        peaks = []
        for count in options.counts:
            works = works_of(folder, count)
            found: dict[str, list[Cost]] = {name: [] for name in works}
            for _ in range(options.rounds):
                for name, work in works.items():
                    found[name].append(work())
            least = {name: Cost(*map(min, zip(*costs, strict=True))) for name, costs in found.items()}
            read = least["one warm read"]
            peaks.append(least["inspect"].peak - empty.peak)
            print(f"{count} ingredients, {count * layers * WIDE * WIDE * 4 / 1e6:.0f} MB", end="")
            print(f", {peaks[-1] / 1e6:.1f} MB of memory above that of two small ones")
            for name, cost in least.items():
                reads, by_wall = cost.processor / read.processor, cost.wall / read.wall
                print(f"  {name:16} {cost.processor:6.2f} s of processor time, {reads:5.1f} reads", end="")
                print(f"; by wall {cost.wall:6.2f} s, {by_wall:5.1f} reads")
    print(f"memory of {options.counts[1]} to {options.counts[0]} ingredients: {peaks[1] / peaks[0]:.2f}")


def works_of(folder: Path, count: int) -> dict[str, Callable[[], Cost]]:
    """What is measured in turns."""
    runs = folder / "runs"
    files = sorted(runs.iterdir())[:count]
    return {
        "one warm read": lambda: read_once(lambda _chunk: None, files),
        "cat": lambda: read_by_cat(files),
        "SHA-256": lambda: read_once(hashlib.sha256().update, files),
        "of small ones": lambda: inspected(folder / "tiny", 2, "--quiet"),
        "inspect": lambda: inspected(runs, count, "--quiet"),
        "inspect --json": lambda: inspected(runs, count, "--json", "--fresh"),
    }


def write(folder: Path, count: int, *, layers: int, wide: int) -> None:
    """Checkpoints of one start, each moved by its own noise."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(wide, wide, generator=generator) for _ in range(layers)]
    for number in range(count):
        moved = [0.05 * torch.randn(wide, wide, generator=generator) + matrix for matrix in start]
        save_file({f"blocks.{n}.fc.weight": m for n, m in enumerate(moved)}, folder / f"{number:03}.safetensors")


def inspected(runs: Path, count: int, *words: str) -> Cost:
    """The command in a process of its own."""
    files = [str(path) for path in sorted(runs.iterdir())[:count]]
    code = (
        "import pathlib, sys, time; import soupcli.commands.inspect, soupcli.output.inspection\n"
        "from soupcli.cli.app import run\n"
        "def now(): return time.process_time(), time.monotonic()\n"
        "began = now(); code = run(['inspect', *sys.argv[1:]]); ended = now()\n"
        "lines = pathlib.Path('/proc/self/status').read_text().splitlines()\n"
        "peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM'))\n"
        "print(); print(code, peak, *began, *ended)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SOUP_CACHE": str(runs.parent / "cache")}
    ran = subprocess.run(
        [sys.executable, "-c", code, *words, "--ckpts", *files],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=runs.parent,
    )
    exit_code, peak, *times = ran.stdout.splitlines()[-1].split()
    assert exit_code == "0", ran.stderr
    processor, wall, *ended = map(float, times)
    return Cost(ended[0] - processor, ended[1] - wall, int(peak))


def read_once(use: Callable[[memoryview], None], files: list[Path]) -> Cost:
    """Read every byte once and use it, from a cache as warm as the command found it."""
    began = time.process_time(), time.monotonic()
    memory = paged(CHUNK)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(memory):
                use(memory[:count])
    return Cost(time.process_time() - began[0], time.monotonic() - began[1])


def read_by_cat(files: list[Path]) -> Cost:
    """Read every byte once as another program does, which throws it away."""
    before, began = os.times(), time.monotonic()
    subprocess.run(["cat", *map(str, files)], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(spent, time.monotonic() - began)


if __name__ == "__main__":
    main()
