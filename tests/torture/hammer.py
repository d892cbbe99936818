"""Many processes at once on one cache and on one output: no reader sees half a score, no two write one soup."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from soupcli.errors import OutputError
from soupcli.evaluation.kept_scores import FitStore, ScoreStore
from soupcli.evaluation.score import Score
from soupcli.files.json_text import key_of
from soupcli.files.lock import claim
from soupcli.metrics.metric import MetricValue


def score(number: int) -> Score:
    """One that is whole when all of its parts say the same number."""
    outcomes = {"accuracy": torch.full((3_000,), number % 200, dtype=torch.uint8)}
    return Score({"accuracy": MetricValue(float(number), None, number)}, "accuracy", True, number, outcomes)


def _scores(folder: Path, rng: random.Random) -> bool:
    """Writes or reads one of a few keys; whether what is read is whole."""
    key = key_of({"key": rng.randrange(5)})
    if rng.random() < 0.4:
        ScoreStore(folder / "scores").put(key, score(rng.randrange(10_000)))
        return True
    found = ScoreStore(folder / "scores").get(key)
    if found is None:
        return not (folder / "scores" / key[:2] / f"{key}.json").exists()
    number = int(found.value)
    same = torch.equal(found.outcomes["accuracy"], score(number).outcomes["accuracy"])
    return same and found.metrics["accuracy"].n == number


def _fits(folder: Path, rng: random.Random) -> bool:
    store = FitStore(folder / "fits", "fit")
    number = rng.randrange(1_000)
    if rng.random() < 0.4:
        store.put({"step": number, "alpha": [number] * 500})
        return True
    found = store.get()
    return found == {"step": found["step"], "alpha": [found["step"]] * 500} if found else not store.file.exists()


def _output(folder: Path, rng: random.Random) -> bool:
    """Two that hold the claim at once would see each other's mark."""
    mark = folder / "mark"
    try:
        with claim(folder / "soup"):
            alone = not mark.exists()
            mark.touch()
            time.sleep(0.001 * rng.random())
            mark.unlink()
            return alone
    except OutputError:
        return True
    except FileNotFoundError:  # another one took the mark away
        return False


KINDS: dict[str, Callable[[Path, random.Random], bool]] = {"scores": _scores, "fits": _fits, "output": _output}


def campaign(folder: Path, *, processes: int, rounds: int, seed: int) -> tuple[Counter[str], list[str]]:
    """`rounds` accesses by each of so many processes: counts, and a line for each kind that was not whole."""
    folder.mkdir(parents=True, exist_ok=True)
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            _work(folder, number, rounds, seed)
        children.append(child)
    counts: Counter[str] = Counter()
    broken = []
    for number, child in enumerate(children):
        _, status = os.waitpid(child, 0)
        result = folder / f"result-{number}.json"
        if status or not result.exists():
            broken.append(f"process {number} ended with {status}")
            continue
        for kind, (done, bad) in json.loads(result.read_bytes()).items():
            counts[f"accesses to {kind}"] += done
            if bad:
                broken.append(f"process {number}: {bad} times {kind} were not whole, or not alone")
    left = [str(path) for path in folder.rglob(".*")]
    return counts, broken + ([f"left behind: {left}"] if left else [])


def _work(folder: Path, number: int, rounds: int, seed: int) -> None:
    code = 98
    try:
        rng = random.Random(f"{seed}/{number}")
        found = {kind: [0, 0] for kind in KINDS}
        for _ in range(rounds):
            kind = rng.choice(list(KINDS))
            found[kind][0] += 1
            found[kind][1] += not KINDS[kind](folder, rng)
        (folder / f"result-{number}.json").write_text(json.dumps(found))
        code = 0
    finally:
        os._exit(code)
