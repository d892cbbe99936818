"""How well commands are dealt out: `python benchmarks/dealing.py [--seconds 1] [--ingredients 12]`.

Ingredients are ranked by a `command:` set that takes a second, with 1, 2, 4 and 8 jobs: the wall time over the ideal,
which is the start of soup and as many rounds of a second as there are; and the processor time of soup itself for one
evaluation, which other load does not disturb. Then greedy with `--jobs 4 --speculate 3` over
greedy with one job, and over `--jobs 4` alone (ranking and search, without the start), on families of which as many
candidates are kept as of the three demos (docs/results.md, mean over seeds), spread evenly, and on one of which none is
kept: the most that speculation can gain. Commands sleep, so that few cores serve many jobs.
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
# Ingredients, and how many of them the greedy soup keeps.
KEPT = {"digits": (12, 5), "text": (8, 3), "images": (10, 4), "none kept": (12, 1)}
PROGRAM = """
import json, struct, sys, time
time.sleep(float(sys.argv[2]))
raw = open(sys.argv[1], "rb").read()
base = 8 + struct.unpack("<Q", raw[:8])[0]
shares = struct.unpack(f"<{(len(raw) - base) // 4}f", raw[base:])
members = {number for number, share in enumerate(shares) if share}
alone = 0.9 - 0.01 * min(members)
good = members <= set(map(int, sys.argv[3].split(",")))
print(json.dumps({"accuracy": alone if len(members) == 1 else (0.9 + 0.001 * len(members) if good else 0.5)}))
"""


OWN_TIME = """
import resource, sys
from soupcli.cli.app import run
code = run(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print("own seconds:", used.ru_utime + used.ru_stime, file=sys.stderr)
sys.exit(code)
"""


def kept_of(ingredients: int, kept: int) -> list[int]:
    """Which ones the greedy soup keeps: the best, and others at even distances."""
    return sorted({0, *(round(number * ingredients / kept) for number in range(1, kept))})


def write_family(folder: Path, ingredients: int, seconds: float, kept: int = 1) -> None:
    """Ingredients of one number each that is not 0, by which the program tells who is in a mixture."""
    for number in range(ingredients):
        (folder / f"runs/{number}").mkdir(parents=True, exist_ok=True)
        save_file({"w": 0.7 * torch.eye(ingredients)[number]}, folder / f"runs/{number}/model.safetensors")
    (folder / "eval.py").write_text(PROGRAM)
    members = ",".join(map(str, kept_of(ingredients, kept)))
    command = f"{shlex.quote(sys.executable)} eval.py {{weights}} {seconds} {members}"
    (folder / "soup.yaml").write_text(json.dumps({"val": {"val": {"command": command}}, "metric": "accuracy"}))


def wall(folder: Path, *words: str) -> float:
    """Seconds of one run of soup with a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        began = time.monotonic()
        ran = subprocess.run(
            [sys.executable, "-m", "soupcli", *words, "--ckpts", *map(str, sorted(folder.glob("runs/*"))), "--quiet"],
            cwd=folder,
            env={**os.environ, "SOUP_CACHE": cache},
            check=False,
            capture_output=True,
            text=True,
        )
        if ran.returncode:
            raise SystemExit(ran.stderr)
        return time.monotonic() - began


def own_time(ingredients: int, jobs: int) -> float:
    """Processor seconds of soup, without its commands', to rank so many ingredients whose commands take no time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_family(folder, ingredients, 0.0)
        paths = [str(path) for path in sorted(folder.glob("runs/*"))]
        words = [
            sys.executable,
            "-c",
            OWN_TIME,
            "rank",
            "--val",
            "val",
            "--jobs",
            str(jobs),
            "--quiet",
            "--ckpts",
            *paths,
        ]
        environment = {**os.environ, "SOUP_CACHE": str(folder / "cache")}
        ran = subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True, text=True)
        return float(ran.stderr.rpartition("own seconds:")[2])


def main() -> None:
    """Prints one line for each number of jobs, then one for speculation on each family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--ingredients", type=int, default=12)
    parser.add_argument("--only", choices=("rank", "greedy"), help="one of the two alone")
    given = parser.parse_args()
    if given.only != "greedy":
        rank(given.ingredients, given.seconds)
    for name, (ingredients, kept) in KEPT.items() if given.only != "rank" else ():
        with tempfile.TemporaryDirectory() as place:
            speculate(Path(place), name, ingredients, kept, given.seconds)


def rank(ingredients: int, seconds: float) -> None:
    """Prints what a ranking takes, with each number of jobs, over the ideal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_family(folder, ingredients, 0.0)
        start = wall(folder, "rank", "--val", "val", "--jobs", "8")
        write_family(folder, ingredients, seconds)
        for jobs in JOBS:
            ideal = start + math.ceil(ingredients / jobs) * seconds
            report = folder / f"{jobs}.json"
            took = wall(folder, "rank", "--val", "val", "--jobs", str(jobs), "--report", str(report))
            alone = json.loads(report.read_text())["cost"]["seconds"]["rank"]
            print(
                f"rank, {jobs} jobs: {took:.2f} s, {took / ideal:.2f} of the ideal; the evaluations alone "
                f"{alone:.2f} s, {alone / (ideal - start):.2f}"
            )
    few, many = (own_time(count, jobs=8) for count in (ingredients, 5 * ingredients))
    print(f"processor time of soup itself: {1000 * (many - few) / (4 * ingredients):.1f} ms an evaluation", flush=True)


def speculate(folder: Path, name: str, ingredients: int, kept: int, seconds: float) -> None:
    """Prints how greedy ends sooner; the soups must be the same."""
    write_family(folder, ingredients, seconds, kept)
    ways = {"one": [], "four": ["--jobs", "4"], "ahead": ["--jobs", "4", "--speculate", "3"]}
    took: dict[str, float] = {}
    for way, words in ways.items():
        wall(folder, "greedy", "--val", "val", *words, "--out", str(folder / way))
        report = json.loads((folder / way / "soup.json").read_text())
        assert len(report["soup"]["members"]) == kept
        took[way] = report["cost"]["seconds"]["rank"] + report["cost"]["seconds"]["greedy"]
    assert len({(folder / way / "model.safetensors").read_bytes() for way in ways}) == 1
    over_one, over_four = took["ahead"] / took["one"], took["ahead"] / took["four"]
    print(
        f"greedy, {name} ({kept} of {ingredients} kept): {took['ahead']:.2f} s, {over_one:.2f} of {took['one']:.2f} s "
        f"with one job, {over_four:.2f} of {took['four']:.2f} s with 4 jobs alone",
        flush=True,
    )


if __name__ == "__main__":
    main()
