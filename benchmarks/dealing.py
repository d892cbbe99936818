"""How well commands are dealt out: `python benchmarks/dealing.py [--seconds 1] [--ingredients 12]`.

Ingredients are ranked by a `command:` set that takes a second, with 1, 2, 4 and 8 jobs: the wall time over the ideal,
which is the start of soup and as many rounds of a second as there are. Then greedy with `--speculate 3 --jobs 4` over
greedy with one job, on a family of which no candidate is kept: the most that speculation can gain. Commands sleep, so
that few cores serve many jobs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

JOBS = (1, 2, 4, 8)
PROGRAM = """
import json, struct, sys, time
time.sleep(float(sys.argv[2]))
raw = open(sys.argv[1], "rb").read()
base = 8 + struct.unpack("<Q", raw[:8])[0]
(value,) = struct.unpack("<f", raw[base:base + 4])
print(json.dumps({"accuracy": value}))
"""


def write_family(folder: Path, ingredients: int, seconds: float) -> None:
    """Ingredients of one number each, which is their score."""
    for number in range(ingredients):
        (folder / f"runs/{number}").mkdir(parents=True, exist_ok=True)
        save_file({"w": torch.tensor([0.9 - 0.01 * number])}, folder / f"runs/{number}/model.safetensors")
    (folder / "eval.py").write_text(PROGRAM)
    command = f"{shlex.quote(sys.executable)} eval.py {{weights}} {seconds}"
    (folder / "soup.yaml").write_text(json.dumps({"val": {"val": {"command": command}}, "metric": "accuracy"}))


def wall(folder: Path, *words: str) -> float:
    """Seconds of one run of soup with a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "soupcli", *words, "--ckpts", *map(str, sorted(folder.glob("runs/*"))), "--quiet"],
            cwd=folder,
            env={**os.environ, "SOUP_CACHE": cache},
            check=True,
            capture_output=True,
        )
        return time.monotonic() - began


def main() -> None:
    """Prints one line for each number of jobs, then one for speculation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--ingredients", type=int, default=12)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_family(folder, given.ingredients, 0.0)
        start = wall(folder, "rank", "--val", "val", "--jobs", "8")
        write_family(folder, given.ingredients, given.seconds)
        for jobs in JOBS:
            ideal = start + math.ceil(given.ingredients / jobs) * given.seconds
            took = wall(folder, "rank", "--val", "val", "--jobs", str(jobs))
            print(f"rank, {jobs} jobs: {took:.2f} s, {took / ideal:.2f} of the ideal")
        serial = wall(folder, "greedy", "--val", "val", "--out", str(folder / "one"))
        ahead = wall(folder, "greedy", "--val", "val", "--jobs", "4", "--speculate", "3", "--out", str(folder / "four"))
        print(f"greedy --speculate 3 --jobs 4: {ahead:.2f} s, {ahead / serial:.2f} of {serial:.2f} s with one job")


if __name__ == "__main__":
    main()
