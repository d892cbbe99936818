"""`soup inspect` of 8 and of 32 ingredients: peak memory, and time against reading every byte once.

    python benchmarks/inspection.py                       # make bench-inspect: 60 MB each, a minute or two
    python benchmarks/inspection.py --megabytes 350       # the size of a ViT-B/32

Ratios alone mean something: both sides run in one process tree, on files that were just written. Memory is the peak of
a process that inspects, as Linux counts it, less that of one that inspects two ingredients of a few bytes. Time is
also held against hashing every byte once, which the report needs and the first run does beside the rest.
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

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent
WIDE = 1024
CHUNK = 1 << 20


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--counts", type=int, nargs=2, default=(8, 32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "tiny", 2, layers=1, wide=8)
        layers = max(1, options.megabytes * 10**6 // (WIDE * WIDE * 4))
        write(folder / "runs", max(options.counts), layers=layers, wide=WIDE)
        empty, _ = inspected(folder, "tiny", 2)
        peaks = []
        for count in options.counts:
            peak, seconds = inspected(folder, "runs", count)
            files = sorted((folder / "runs").iterdir())[:count]
            read, hashed = seconds_of(lambda _chunk: None, files), seconds_of(hashlib.sha256().update, files)
            peaks.append(peak - empty)
            size = count * layers * WIDE * WIDE * 4 / 1e6
            print(f"{count:3} ingredients, {size:6.0f} MB: {(peak - empty) / 1e6:6.1f} MB of memory", end="")
            print(
                f", {seconds / read:5.1f} times as long as reading all once, {seconds / hashed:5.2f} as hashing", end=""
            )
            print(f" ({seconds:.2f} s, {read:.2f} s, {hashed:.2f} s)")
    print(f"memory of {options.counts[1]} to {options.counts[0]} ingredients: {peaks[1] / peaks[0]:.2f}")


def write(folder: Path, count: int, *, layers: int, wide: int) -> None:
    """Checkpoints of one start, each moved by its own noise."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(wide, wide, generator=generator) for _ in range(layers)]
    for number in range(count):
        moved = [0.05 * torch.randn(wide, wide, generator=generator) + matrix for matrix in start]
        save_file({f"blocks.{n}.fc.weight": m for n, m in enumerate(moved)}, folder / f"{number:03}.safetensors")


def inspected(folder: Path, family: str, count: int) -> tuple[int, float]:
    """Peak bytes and seconds of the command in a process of its own, without the start of the interpreter."""
    files = [str(path) for path in sorted((folder / family).iterdir())[:count]]
    code = (
        "import pathlib, sys, time; import soupcli.commands.inspect, soupcli.output.inspection\n"
        "from soupcli.cli.app import run\n"
        "began = time.monotonic(); code = run(['inspect', '--quiet', '--ckpts', *sys.argv[1:]])\n"
        "lines = pathlib.Path('/proc/self/status').read_text().splitlines()\n"
        "peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM'))\n"
        "print(code, peak, time.monotonic() - began)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SOUP_CACHE": str(folder / "cache")}
    ran = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, text=True, check=True, env=environment, cwd=folder
    )
    exit_code, peak, seconds = ran.stdout.splitlines()[-1].split()
    assert exit_code == "0", ran.stderr
    return int(peak), float(seconds)


def seconds_of(use: Callable[[memoryview], None], files: list[Path]) -> float:
    """Seconds to read every byte once and use it, from a cache as warm as the command found it."""
    began = time.monotonic()
    memory = memoryview(bytearray(CHUNK))
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(memory):
                use(memory[:count])
    return time.monotonic() - began


if __name__ == "__main__":
    main()
