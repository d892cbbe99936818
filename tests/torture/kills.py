"""Commands that are killed at random moments, then run again to the end: nothing is lost and nothing is half there.

Commands run in forks of a process that has imported everything, so that a kill can come at any of their moments.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from soupcli.cli.app import run
from tests.conftest import write_family

COMMON = ["--ckpts", "runs/0", "runs/1", "runs/2", "runs/3", "--val", "val", "--json"]
COMMANDS = {
    "rank": ["rank", *COMMON, "--report", "report.json"],
    "uniform": ["uniform", *COMMON, "--force"],
    "greedy": ["greedy", *COMMON, "--force"],
    "learned": ["learned", *COMMON, "--force", "--set", "learned.steps=40"],
}


class Whole(NamedTuple):
    """A run that nobody disturbed."""

    outcome: dict[str, Any]  # what must come out again
    evaluated: int  # examples of all evaluations
    fitted: int  # examples of the fit
    seconds: float


def in_fork(words: list[str], *, kill_after: float | None = None) -> int | None:
    """Runs `soup WORDS` in a fork: its exit code, None where it was killed before it ended."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            null = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(null, stream)
            os._exit(run(words))
        os._exit(99)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def import_everything() -> None:
    """What commands import when they need it, so that forks begin with their work."""
    for name in ("commands.learned", "soups.learned", "networks.learned.mixed_network", "evaluation.kept_scores"):
        importlib.import_module(f"soupcli.{name}")
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):  # noqa: PTH123
        assert run(COMMANDS["greedy"]) == 0


def outcome(name: str) -> dict[str, Any]:
    """What a command left: bytes, members, scores; not what takes time or is counted."""
    report = json.loads(Path("report.json" if name == "rank" else "soup/soup.json").read_bytes())
    kept = ("command", "recipe", "ingredients", "soup", "best", "learned", "selecting_set", "sets")
    found: dict[str, Any] = {key: report.get(key) for key in kept}
    decisions = ("candidate", "score", "threshold", "accepted", "reason")
    found["steps"] = [{key: step[key] for key in decisions} for step in report["steps"]]
    if name != "rank":
        found["bytes"] = digest(Path("soup"))
    return found


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a soup but its report, in which the time stands."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "soup.json")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def whole(name: str) -> Whole:
    """The undisturbed run, in a cache of its own."""
    shutil.rmtree("soup", ignore_errors=True)
    with cache("whole"):
        began = time.monotonic()
        assert in_fork(COMMANDS[name]) == 0
        seconds = time.monotonic() - began
        evaluated = sum(kept_scores())
        return Whole(outcome(name), evaluated, cost(name) - evaluated, seconds)


def cost(name: str) -> int:
    """The examples that the last run says it evaluated."""
    found: int = json.loads(Path("report.json" if name == "rank" else "soup/soup.json").read_bytes())["cost"][
        "examples"
    ]
    return found


@contextlib.contextmanager
def cache(name: str) -> Iterator[Path]:
    """An empty cache."""
    before, folder = os.environ.get("SOUP_CACHE"), Path(name).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["SOUP_CACHE"] = str(folder)
    try:
        yield folder
    finally:
        os.environ.pop("SOUP_CACHE")
        if before is not None:
            os.environ["SOUP_CACHE"] = before


def kept_scores() -> list[int]:
    """The evaluations that were finished: the examples of each."""
    files = Path(os.environ["SOUP_CACHE"], "scores").glob("*/*.json")
    return [json.loads(file.read_bytes())["content"]["examples"] for file in files]


def attempt(name: str, undisturbed: Whole, old: Path, rng: random.Random, counts: Counter[str]) -> Iterator[str]:
    """Up to three kills over an old soup, then the same command to its end; yields what is not as promised."""
    shutil.rmtree("soup", ignore_errors=True)
    shutil.copytree(old, "soup")
    Path("report.json").unlink(missing_ok=True)
    before = digest(Path("soup"))
    with cache("killed") as folder:
        for _ in range(rng.randint(1, 3)):
            code = in_fork(COMMANDS[name], kill_after=rng.random() * 1.1 * undisturbed.seconds)
            counts[f"{name}: {'killed' if code is None else 'had ended'}"] += 1
            if name != "rank" and digest(Path("soup")) not in (before, undisturbed.outcome["bytes"]):
                yield "neither the old soup nor the new one stands there"
            if code is None:
                counts[f"{name}: left something behind"] += bool(leftovers(folder))
        finished = kept_scores()
        if in_fork(COMMANDS[name]) != 0:
            yield "the same command does not go on"
            return
        counts[f"{name}: finished evaluations found again"] += len(finished)
        if outcome(name) != undisturbed.outcome:
            yield "another outcome"
        again = cost(name) - (undisturbed.evaluated - sum(finished))
        if (name != "learned" and again != 0) or again > undisturbed.fitted:
            yield f"{again} examples of finished evaluations were evaluated again"
        if left := leftovers(folder):
            yield f"left behind: {left}"


def leftovers(folder: Path) -> list[str]:
    """Temporary files of killed processes, beside the output and in the cache."""
    return sorted(str(entry) for place in (Path(), folder) for entry in place.rglob(".*") if "-" in entry.name)


def campaign(folder: Path, *, kills: int, seed: int) -> tuple[Counter[str], list[str]]:
    """At least so many kills over the four commands: counts, and a line for each broken promise."""
    counts: Counter[str] = Counter()
    broken: list[str] = []
    here = Path.cwd()
    write_family(folder, members=4)
    os.chdir(folder)
    try:
        torch.set_num_threads(1)  # forks have no threads of torch
        with cache("first"):
            import_everything()
            assert in_fork(["uniform", "--ckpts", "runs/0", "runs/1", "--out", "old", "--quiet"]) == 0
        undisturbed = {name: whole(name) for name in COMMANDS}
        number = 0
        while sum(count for what, count in counts.items() if what.endswith(": killed")) < kills and number < 20 * kills:
            name, rng = list(COMMANDS)[number % len(COMMANDS)], random.Random(f"{seed}/{number}")
            found = attempt(name, undisturbed[name], Path("old"), rng, counts)
            broken += [f"kill {number} ({name}): {what}" for what in found]
            number += 1
    finally:
        os.chdir(here)
    return counts, broken
