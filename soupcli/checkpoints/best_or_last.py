"""Chooses one checkpoint of each run, by name or by the trainer's record: `--prefer best`, `--prefer last`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.formats.folders.parts import STEPS
from soupcli.checkpoints.formats.folders.trainer_state import best_by_trainer
from soupcli.checkpoints.formats.names import plain_names
from soupcli.checkpoints.formats.table import read_contents
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, distinct
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from soupcli.checkpoints.contents import How

SHOWN = 4  # names in a line
FORMS = {"best": re.compile(r"best"), "last": re.compile(r"last|latest|final")}
AVERAGED = re.compile(r"ema|swa")
# Words of a name that say nothing more than best or last: `model_best` is the best, `best_acc` is one of several.
PLAIN = re.compile(r"best|last|latest|final|(pytorch_?)?model|checkpoint|ckpt|weights?|net(work)?|state|dict|params?")
VERSION = re.compile(r"-v\d+(?=\.)")  # of Lightning's, which keeps what an earlier run has left under the same name


def in_natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    return natural_order(str(path))


def listed(names: Iterable[str]) -> str:
    first = list(islice(names, SHOWN + 1))
    return ", ".join(first[:SHOWN]) + (", ..." if len(first) > SHOWN else "")


def one_of_each_run(found: Sequence[Path], prefer: str | None, failures: list[CheckpointError], how: How) -> list[Path]:
    """Return one checkpoint of each run, by name or by the trainer's record, or all without `prefer`.

    A run that leaves the choice open adds to `failures`.
    """
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
        try:
            chosen.append(_one_of(folder, sorted(members, key=in_natural_order), prefer, how))
        except CheckpointError as failure:
            failures.append(failure)
    return chosen


def _one_of(folder: Path, members: Sequence[Path], prefer: str, how: How) -> Path:
    """Return the checkpoint called `best` or `last`, or without such a name the one by the trainer's record."""
    if len(members) == 1:
        return members[0]
    called = [one for one in members if FORMS[prefer].search(one.stem.lower())]
    rivals = called
    if not rivals and prefer == "last":
        rivals = [one for one in members if re.search(r"\d", one.stem)]
    rivals = [one for one in rivals if not AVERAGED.search(one.stem.lower())] or rivals
    rivals = _without_copies(_plain(rivals) or rivals)
    member = rivals[-1] if rivals else _best_by_trainer(members) if prefer == "best" else None
    if member is None:
        raise CheckpointError(
            f"{folder}: none of its {len(members)} checkpoints is called {prefer}: {_names(members)}",
            hint="--last 1 takes the last of each run by its step",
        )
    _check_one_network(folder, member, called or rivals, how)
    series = {_series(one) for one in rivals}
    if len(series) > 1 or (prefer == "best" and len(rivals) > 1):
        alike = f", or use all of them: --ckpts '{folder / _series(member)}'" if len(series) == 1 else ""
        first = member if alike else f"--ckpts '{folder.parent / '*' / rivals[0].name}'"
        raise CheckpointError(
            f"{folder}: {len(rivals)} of its checkpoints {'are called' if called else 'may be the'} {prefer}: "
            f"{_names(rivals)}",
            hint=f"give one of each run, such as {first}{alike}",
        )
    return member


def _plain(rivals: Sequence[Path]) -> list[Path]:
    """Return the one whose name says nothing but best or last, and versions of it; nothing if several do."""
    found = [one for one in rivals if all(map(PLAIN.fullmatch, _words(VERSION.sub("", one.name).partition(".")[0])))]
    return found if len({VERSION.sub("", one.name) for one in found}) == 1 else []


def _without_copies(rivals: Sequence[Path]) -> list[Path]:
    """Return the paths without files that a later one holds byte for byte: any of these may be taken."""
    if len(rivals) < 2 or not all(one.is_file() for one in rivals):
        return list(rivals)
    kept = {file.path for file in distinct([FileVersion.of(one) for one in reversed(rivals)])}
    return [one for one in rivals if one in kept]


def _words(stem: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", stem.lower())


def _names(paths: Iterable[Path]) -> str:
    return listed(one.name for one in paths)


def _series(path: Path) -> str:
    """Return a pattern of the names that differ from a path's in numbers alone."""
    return re.sub(r"(?<==)-(?=\*)", "", re.sub(r"\d+", "*", path.name))


def _check_one_network(folder: Path, member: Path, rivals: Sequence[Path], how: How) -> None:
    """Raise CheckpointError if a file of a run with as good a name holds another network: trunk_best, embedder_best."""
    own = _tensors_of(member, how)
    others = {_series(one): one for one in rivals if _series(one) != _series(member)}
    strangers = [one for one in others.values() if own and (held := _tensors_of(one, how)) and not own & held]
    if strangers:
        raise CheckpointError(
            f"{folder}: holds different networks: {_names([member, *strangers])}",
            hint=f"mix each by itself: --ckpts '{folder / _series(member)}'",
        )


def _tensors_of(path: Path, how: How) -> set[tuple[str, tuple[int, ...]]]:
    """Return names and shapes of the tensors in a file; nothing of a folder, or of a file that is refused later."""
    try:
        specs = read_contents(FileVersion.of(path), how).specs if path.is_file() else {}
    except CheckpointError:
        return set()
    names = plain_names(specs)
    return {(name, specs[stored].shape) for stored, name in names.items()}


def _best_by_trainer(members: Sequence[Path]) -> Path | None:
    """Return the checkpoint that `trainer_state.json` of the last one names as the best."""
    name = best_by_trainer(members[-1])
    return next((one for one in members if one.name == name), None)
