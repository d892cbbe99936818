"""Chooses one checkpoint of each run, by name or by the trainer's record: `--prefer best`, `--prefer last`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from soupcli.checkpoints.formats.folders.parts import STEPS
from soupcli.checkpoints.formats.folders.trainer_state import best_by_trainer
from soupcli.errors import CheckpointError
from soupcli.wording import natural_order

SHOWN = 4  # names in a line
FORMS = {"best": re.compile(r"best"), "last": re.compile(r"last|latest|final")}
AVERAGED = re.compile(r"ema|swa")


def in_natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    return natural_order(str(path))


def listed(names: Iterable[str]) -> str:
    first = list(islice(names, SHOWN + 1))
    return ", ".join(first[:SHOWN]) + (", ..." if len(first) > SHOWN else "")


def one_of_each_run(found: Sequence[Path], prefer: str | None, failures: list[CheckpointError]) -> list[Path]:
    """Return one checkpoint of each run, by name or by the trainer's record, or all without `prefer`."""
    if prefer is None:
        return list(found)
    runs: dict[tuple[Path, bool], list[Path]] = {}
    chosen: list[Path] = []
    for one in dict.fromkeys(found):
        if one.is_dir() and not STEPS.fullmatch(one.name):
            chosen.append(one)
        else:
            runs.setdefault((one.parent, one.is_dir()), []).append(one)
    for (folder, _), members in runs.items():
        member = members[0] if len(members) == 1 else _one_of(sorted(members, key=in_natural_order), prefer)
        if member is None:
            shown = listed(one.name for one in members)
            failure = f"{folder}: none of its {len(members)} checkpoints is called {prefer}: {shown}"
            failures.append(CheckpointError(failure, hint="--last 1 takes the last of each run by its step"))
        else:
            chosen.append(member)
    return chosen


def _one_of(members: Sequence[Path], prefer: str) -> Path | None:
    """Return the checkpoint called `best` or `last`, or without such a name the one by the trainer's record."""
    called = [one for one in members if FORMS[prefer].search(one.stem.lower())]
    plain = [one for one in called if not AVERAGED.search(one.stem.lower())] or called
    if plain:
        return min(plain, key=lambda one: len(one.name)) if prefer == "best" else plain[-1]
    if prefer == "best":
        return _best_by_trainer(members)
    numbered = [one for one in members if re.search(r"\d", one.stem)]
    return max(numbered, key=in_natural_order) if numbered else None


def _best_by_trainer(members: Sequence[Path]) -> Path | None:
    """Return the checkpoint that `trainer_state.json` of the last one names as the best."""
    name = best_by_trainer(members[-1])
    return next((one for one in members if one.name == name), None)
