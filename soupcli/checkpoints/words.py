"""Turns the words after --ckpts into paths: globs, folders to search, and paths that are skipped.

named = paths_of(["runs/**"], standard_input=(), prefer="best")
named.paths                                             # in natural order, without what is no checkpoint
named.notes                                             # "runs: 12 checkpoints below it"
named.failures                                          # words that name nothing
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.best_or_last import in_natural_order, listed, one_of_each_run
from soupcli.checkpoints.contents import How
from soupcli.checkpoints.folder_search import FolderSearch, counted
from soupcli.checkpoints.formats.folders.folder import nearest_folder
from soupcli.checkpoints.hub import hub_reference
from soupcli.errors import CheckpointError, UsageError
from soupcli.files.lock import finish_abandoned

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint


MOST_LINES = 100_000  # of standard input


@dataclass
class Named:
    """The paths that the words name."""

    paths: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed: list[Path] = field(default_factory=list)  # what a glob finds beside checkpoints
    failures: list[CheckpointError] = field(default_factory=list)
    opened: Mapping[Path, Checkpoint] = field(default_factory=dict)  # those of the paths that had to be opened to tell
    refused: Mapping[Path, CheckpointError] = field(default_factory=dict)  # and those that could not be


def paths_of(
    words: Sequence[str],
    standard_input: Iterable[str] = (),
    prefer: str | None = None,
    how: How | None = None,
) -> Named:
    """Return the paths that the words name. A folder that is no checkpoint means all checkpoints below it.

    `prefer` (`best` or `last`) chooses among several checkpoints of one run. Raises UsageError for an empty word.
    """
    named = Named()
    given: dict[Path, bool] = {}  # path -> whether a pattern named it
    for word in words:
        try:
            for path, by_pattern in _expand(word, standard_input):
                given[path] = given.get(path, False) or by_pattern
        except CheckpointError as error:
            named.failures.append(error)
    search, siblings = FolderSearch(prefer, how or How()), _siblings(given)
    named.opened, named.refused = search.opened, search.refused
    found: list[Path] = []
    passed: list[Path] = []
    for path in sorted(given, key=in_natural_order):
        below = search.below(path, named.notes)
        if below is None and (given[path] or path in siblings) and search.is_something_else(path):
            passed.append(path)
        else:
            found += [path] if below is None else below
    if passed and not found:
        found, passed = passed, []
    kept = one_of_each_run(_without_parts(found, given), prefer, named.failures, search.how)
    named.paths = sorted(dict.fromkeys(kept), key=in_natural_order)
    if passed:
        named.passed.extend(passed)
        named.notes.append(f"{counted(passed, 'path')} passed over, no checkpoint: {listed(map(str, passed))}")
    return named


def _expand(word: str, standard_input: Iterable[str]) -> list[tuple[Path, bool]]:
    """Return the paths of one word, each with whether a pattern named it."""
    if word == "-":
        rest = iter(standard_input)
        lines = dict.fromkeys(line.rstrip("\r\n") for line in islice(rest, MOST_LINES))
        paths = [Path(line) for line in lines if line.strip()]
        if next(rest, None) is not None:
            raise UsageError(
                f"--ckpts -: standard input has more than {MOST_LINES} lines",
                hint="a folder means all checkpoints below it: --ckpts runs",
            )
        if not paths:
            raise UsageError("--ckpts -: standard input has no path", hint="ls -d runs/*/ | soup ... --ckpts -")
        return [(path, False) for path in paths]
    if not word.strip():
        raise UsageError("--ckpts: an empty word", hint="is a shell variable unset?")
    home = str(Path(word).expanduser())
    finish_abandoned(Path(home))
    if Path(word).exists() or Path(word).is_symlink():
        return [(Path(word), False)]
    if Path(home).exists():
        return [(Path(home), False)]
    pattern = home + ("/" if word.endswith("/") else "")
    if pattern.rstrip("/").endswith("/**"):  # all below: the folders before it are looked into
        matches = [one for one in glob.glob(pattern.rstrip("/")[:-3]) if Path(one).is_dir()]  # noqa: PTH207
    else:
        matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - the word is a shell's pattern, not a folder and one
    if matches:
        return [(Path(match), True) for match in matches]
    if hub_reference(word) is not None and "," not in word:
        return [(Path(word), False)]
    raise _nothing_there(word)


def _nothing_there(word: str) -> CheckpointError:
    """Return the error for a word that names nothing."""
    if "," in word and all(_names_something(part) for part in word.split(",")):
        return CheckpointError(
            f"{word}: no such file or folder", hint=f"a space between two: --ckpts {' '.join(word.split(','))}"
        )
    what = "the glob matches nothing" if glob.has_magic(word) else "no such file or folder"
    return CheckpointError(f"{word}: {what}", hint=nearest_folder(Path(word)))


def _names_something(part: str) -> bool:
    return bool(part.strip()) and (Path(part).expanduser().exists() or bool(glob.glob(part)))  # noqa: PTH207


def _siblings(given: Iterable[Path]) -> set[Path]:
    """Return paths with siblings among the given ones: a shell may have expanded a pattern to them."""
    beside: dict[Path, list[Path]] = {}
    for path in given:
        beside.setdefault(path.parent, []).append(path)
    return {path for paths in beside.values() if len(paths) > 1 for path in paths}


def _without_parts(found: Sequence[Path], by_pattern: Mapping[Path, bool]) -> list[Path]:
    """Return the paths without files inside given folders that a pattern found: `runs/**/*` names all of both."""
    kept = {one for one in found if one.is_dir()}
    return [one for one in found if one.parent not in kept or one.is_dir() or not by_pattern.get(one, False)]
