"""Finds soups among the ingredients: those of the same ingredients are left out, others are reported.

paths, notes = without_output(paths, Path("runs/soup"))
checkpoints, soups = without_soups(checkpoints, doubles)
notes = soups_among(checkpoints)
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.hashes import ContentHashes
from soupcli.environment import cache_folder
from soupcli.files.json_text import MAX_REPORT, parse_json
from soupcli.files.small_file import read_small
from soupcli.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.doubles import Double

REPORT = "soup.json"
MOST_MEMBERS = 10_000  # of a report, whose paths are looked for
OF_ESPNET = re.compile(r".+\.ave(_\d+best)?(\..+)?\.pth")  # the mean of its best epochs
EPOCH = re.compile(r"\d+epoch\.pth")


def without_output(paths: Sequence[Path], out: Path) -> tuple[list[Path], list[str]]:
    """Return the paths without the soup in the folder `out`, unless it is the only one, and a line about it.

    Only the files that its report lists are the soup's: others in the folder are ingredients.
    """
    if not (out / REPORT).is_file():
        return list(paths), []
    folder = os.path.realpath(out)
    soup = {folder, *(os.path.join(folder, str(name)) for name in _stated(out, "files"))}  # noqa: PTH118 - real paths
    own = [path for path in paths if os.path.realpath(path) in soup]
    others = [path for path in paths if path not in own]
    if not others:
        return list(paths), []
    return others, [f"{path} is left out: it is the old soup of --out {out}" for path in own]


class EarlierSoup(NamedTuple):
    """A soup, and those among the ingredients that it was mixed of: all of its members."""

    checkpoint: Checkpoint
    of: tuple[Checkpoint, ...]

    @property
    def shown(self) -> str:
        """What it is, for a message."""
        names = ", ".join(str(one.path) for one in self.of[:3])
        return f"a soup of {names}{', ...' if len(self.of) > 3 else ''}"


def without_soups(
    checkpoints: Sequence[Checkpoint], doubles: Sequence[Double], progress: Progress = silent
) -> tuple[list[Checkpoint], list[EarlierSoup]]:
    """Return the checkpoints without the soups whose members are all among them or `doubles`, and these soups.

    A soup knows its members by the hashes of their content. All files are hashed if there is one with such a mark.
    """
    marked = [one for one in checkpoints if one.origin.members]
    if not marked:
        return list(checkpoints), []
    stands_for = {**{one: one for one in checkpoints}, **dict(doubles)}
    by_hash: dict[str, Checkpoint] = {}
    hashes = ContentHashes(cache_folder() / "hashes")
    try:
        hashes.start(list(stands_for))
        for done, (one, kept) in enumerate(stands_for.items(), 1):
            by_hash.setdefault(hashes.of(one), kept)
            progress("looking for soups of the ingredients", done, len(stands_for))
    finally:
        hashes.close()
    of_others = [one for one in marked if by_hash.keys() >= set(one.origin.members)]
    members = [{by_hash[member] for member in one.origin.members} for one in of_others]
    soups = [
        EarlierSoup(one, tuple(each for each in checkpoints if each in of_one))
        for one, of_one in zip(of_others, members, strict=True)
    ]
    return [one for one in checkpoints if one not in of_others], soups


def soups_among(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return a line for each checkpoint that is a soup of others among them, or of checkpoints that nothing names."""
    paths = {os.path.realpath(one.path): one for one in checkpoints}
    with_epochs = {one.path.parent for one in checkpoints if EPOCH.fullmatch(one.path.name)}
    notes = []
    for one in checkpoints:
        made_of = [str(paths[path].path) for path in _members(one.path) if path in paths and paths[path] is not one]
        if made_of:
            notes.append(f"{one.path} is a soup of {', '.join(made_of[:3])}: they count more than others in this one")
        elif one.path.parent in with_epochs and OF_ESPNET.fullmatch(one.path.name):
            notes.append(f"{one.path} is ESPnet's mean of its best epochs, which count more than others in this soup")
        elif one.origin.members and not _members(one.path):
            notes.append(
                f"{one.path} is a soup of {len(one.origin.members)} checkpoints, and no {REPORT} says which: those of "
                "them that are given too count more than others"
            )
    return notes


def _members(path: Path) -> list[str]:
    """Return the real paths of a soup's members, or nothing if there is no report or it does not list the file."""
    folder = path if path.is_dir() else path.parent
    if path != folder and path.name not in _stated(folder, "files"):
        return []
    try:
        return [os.path.realpath(str(member)) for member in _stated(folder, "members")[:MOST_MEMBERS]]
    except ValueError:  # no path
        return []


def _stated(folder: Path, key: str) -> list[Any]:
    """Return a list that the report of the soup in a folder states, or an empty one."""
    try:
        report: Any = parse_json(read_small(folder / REPORT, most=MAX_REPORT))
        return list(report["soup"][key])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
