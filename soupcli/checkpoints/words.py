"""From the words after --ckpts to paths: globs, folders to look below, and what is passed over.

named = paths_of(["runs/**"], standard_input=(), prefer="best")
named.paths                                             # in natural order; what is no checkpoint is not among them
named.notes                                             # "runs: 12 checkpoints below it"
named.failures                                          # words that name nothing
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from soupcli.checkpoints.contents import How
from soupcli.checkpoints.earlier_soups import REPORT
from soupcli.checkpoints.formats import folder as folders
from soupcli.checkpoints.formats import shards
from soupcli.checkpoints.formats.foreign import refuse_foreign
from soupcli.checkpoints.formats.parts import STEPS
from soupcli.checkpoints.formats.table import read_contents
from soupcli.checkpoints.hub import hub_reference
from soupcli.checkpoints.open import is_laid_out
from soupcli.errors import CheckpointError, UsageError
from soupcli.files.reading import FileVersion, distinct, read_small
from soupcli.wording import natural_order

MOST_LOOKED_AT = 200_000  # folders below a word
SHOWN = 4  # names in a line
WEIGHTS_ENDINGS = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".nemo"})
FORMS = {"best": re.compile(r"best"), "last": re.compile(r"last|latest|final")}
AVERAGED = re.compile(r"ema|swa")


@dataclass
class Named:
    """What the words name."""

    paths: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed: list[Path] = field(default_factory=list)  # what a glob finds beside checkpoints
    failures: list[CheckpointError] = field(default_factory=list)


def paths_of(
    words: Sequence[str],
    standard_input: Iterable[str] = (),
    prefer: str | None = None,
    how: How | None = None,
) -> Named:
    """The paths that the words name. Folders that hold no checkpoint themselves stand for those below them.

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
    search, siblings = _Search(prefer, how or How()), _siblings(given)
    found: list[Path] = []
    passed: list[Path] = []
    for path in sorted(given, key=_order):
        below = search.below(path, named.notes)
        if below is None and (given[path] or path in siblings) and search.is_something_else(path):
            passed.append(path)
        else:
            found += [path] if below is None else below
    if passed and not found:
        found, passed = passed, []
    kept = _preferred(_without_parts(found, given), prefer, named.failures)
    named.paths = sorted(dict.fromkeys(kept), key=_order)
    if passed:
        named.passed.extend(passed)
        named.notes.append(f"{_count(passed, 'path')} passed over, no checkpoint: {_listed(map(str, passed))}")
    return named


def below(folder: Path) -> list[Path]:
    """The checkpoints in and below a folder. Soups, which have a report beside them, are not among them."""
    search = _Search(None, How())
    return [path for at in search.folders(folder) for path in search.at(at) if not (at / REPORT).is_file()]


def _order(path: Path) -> tuple[list[tuple[int, str]], str]:
    return natural_order(str(path))


def _count(paths: Sequence[Path], noun: str) -> str:
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'}"


def _listed(names: Iterable[str]) -> str:
    first = list(islice(names, SHOWN + 1))
    return ", ".join(first[:SHOWN]) + (", ..." if len(first) > SHOWN else "")


def _expand(word: str, standard_input: Iterable[str]) -> list[tuple[Path, bool]]:
    """The paths of one word, each with whether it is one of several that a pattern names."""
    if word == "-":
        lines = [line.rstrip("\r\n") for line in standard_input]
        paths = [Path(line) for line in lines if line.strip()]
        if not paths:
            raise UsageError("--ckpts -: standard input has no path", hint="ls -d runs/*/ | soup ... --ckpts -")
        return [(path, False) for path in paths]
    if not word.strip():
        raise UsageError("--ckpts: an empty word", hint="is a shell variable unset?")
    home = str(Path(word).expanduser())
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
    """The error of a word that names nothing."""
    if "," in word and all(_names_something(part) for part in word.split(",")):
        return CheckpointError(
            f"{word}: no such file or folder", hint=f"a space between two: --ckpts {' '.join(word.split(','))}"
        )
    what = "the glob matches nothing" if glob.has_magic(word) else "no such file or folder"
    return CheckpointError(f"{word}: {what}", hint=_nearest_folder(word))


def _names_something(part: str) -> bool:
    return bool(part.strip()) and (Path(part).expanduser().exists() or bool(glob.glob(part)))  # noqa: PTH207


def _nearest_folder(word: str) -> str:
    folder = next((parent for parent in Path(word).parents if parent.is_dir()), Path())
    names = sorted((entry.name for entry in folder.iterdir()), key=natural_order)[:8]
    return f"{folder} holds {', '.join(names) or 'nothing'}"


def _siblings(given: Iterable[Path]) -> set[Path]:
    """Paths that have others beside them in their folder: a shell may have made them of a pattern."""
    beside: dict[Path, list[Path]] = {}
    for path in given:
        beside.setdefault(path.parent, []).append(path)
    return {path for paths in beside.values() if len(paths) > 1 for path in paths}


@dataclass(frozen=True)
class _Search:
    """Looks for checkpoints in folders, by names and the first bytes of files."""

    prefer: str | None
    how: How
    known: dict[Path, bool] = field(default_factory=dict)  # whether a folder is a checkpoint

    def below(self, path: Path, notes: list[str]) -> list[Path] | None:
        """Checkpoints in or below a folder that is none itself; None for a checkpoint, and if there are none."""
        if not path.is_dir() or self.is_checkpoint(path):
            return None
        found: list[Path] = []
        soups: list[Path] = []
        for at in self.folders(path):
            if at != path and (at / REPORT).is_file():
                soups.append(at)
            else:
                found += self.at(at)
        if not found or found == [path]:
            return None
        if soups:
            notes.append(f"{path}: {_count(soups, 'soup')} below it passed over: {_listed(map(str, soups))}")
        notes.append(_said(path, found))
        return found

    def is_something_else(self, path: Path) -> bool:
        """Whether nothing about a path says that it holds weights."""
        if path.is_dir():
            return not any(self.is_checkpoint(below) or _claiming(below) for below in self.folders(path))
        if not path.is_file() or _claims_weights(path) or _is_foreign(path):
            return False
        state = path.name.startswith(".") or folders.matches(path.name, folders.TRAINER_STATE)
        return state or not folders.is_weights(path)

    def is_checkpoint(self, folder: Path) -> bool:
        """Whether a folder is one checkpoint, or one that is to be refused by name."""
        if folder not in self.known:
            self.known[folder] = self._is_checkpoint(folder)
        return self.known[folder]

    def _is_checkpoint(self, folder: Path) -> bool:
        if self.how.weights_name is not None:
            return (folder / self.how.weights_name).is_file()
        if is_laid_out(folder, self.how) or _is_foreign(folder):
            return True
        files = _files(folder)
        return len(files) == 1 or _are_shards(folder, files)

    def at(self, folder: Path) -> list[Path]:
        """The checkpoints in a folder itself: the folder if it is one, or files in it."""
        return [folder] if self.is_checkpoint(folder) else self._series(folder)

    def _series(self, folder: Path) -> list[Path]:
        """The files of a folder that are checkpoints of one kind; the folder itself if nothing says that they are."""
        files = _files(folder)
        broken = [] if files or self.how.weights_name is not None else _claiming(folder)
        sure = not broken and (self.prefer is not None or len({_plain(file) for file in files}) <= 1)
        parts = any(shards.is_shard(file.name) for file in files)
        return files if sure and not parts else [folder]

    def folders(self, path: Path) -> Iterator[Path]:
        """The folder and those below it, in natural order. Checkpoints and soups are not looked into."""
        seen: set[str] = set()
        todo = [path]
        while todo and len(seen) < MOST_LOOKED_AT:
            at = todo.pop()
            real = os.path.realpath(at)
            if real in seen:
                continue
            seen.add(real)
            yield at
            if at == path or not ((at / REPORT).is_file() or self.is_checkpoint(at)):
                todo += sorted(_entries(at), key=_order, reverse=True)


def _entries(folder: Path) -> list[Path]:
    """Sub-folders that may hold checkpoints."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []  # it cannot be listed
    return [entry for entry in entries if not entry.name.startswith((".", "__"))]


def _said(path: Path, found: Sequence[Path]) -> str:
    """How many there are below, and how to take one of each run if a run has several."""
    runs: dict[Path, int] = {}
    for one in found:
        if one.is_file() or STEPS.fullmatch(one.name):
            runs[one.parent] = runs.get(one.parent, 0) + 1
    several = [run for run, count in runs.items() if count > 1 and run != path]
    more = ": --prefer best or last takes one of each run" if several else ""
    return f"{path}: {_count(found, 'checkpoint')} below it{more}"


def _claims_weights(file: Path) -> bool:
    """Whether a file has the name of one that holds weights, so that one that is broken is never passed over."""
    if file.name.startswith(".") or folders.matches(file.name, folders.TRAINER_STATE):
        return False
    return file.suffix.lower() in WEIGHTS_ENDINGS or folders.matches(file.name, ("*model*.bin",))


def _claiming(folder: Path) -> list[Path]:
    """Files of a folder that have such names, but for arrays of examples."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [entry for entry in entries if _claims_weights(entry) and entry.is_file() and not _are_examples(entry)]


def _is_foreign(path: Path) -> bool:
    """Whether a path belongs to a checkpoint that only another program puts together."""
    try:
        refuse_foreign(path)
    except (CheckpointError, OSError):
        return True
    return False


def _are_shards(folder: Path, files: Sequence[Path]) -> bool:
    if any(file.name.endswith(folders.INDEX_SUFFIX) for file in files):
        return True
    whole = bool(files) and all(shards.is_shard(file.name) for file in files)
    return whole and len(shards.shard_sets(folder, [file.name for file in files])) == 1


def _files(folder: Path) -> list[Path]:
    """Files of a folder that hold weights, each once."""
    try:
        found = [entry for entry in sorted(folder.iterdir(), key=_order) if folders.is_weights(entry)]
    except OSError:
        return []
    kept = {file.path for file in distinct([FileVersion.of(entry) for entry in found])}
    return [entry for entry in found if entry in kept and not _are_examples(entry)]


def _are_examples(file: Path) -> bool:
    """Whether a file holds the arrays of a validation set."""
    if file.suffix != ".safetensors":
        return False
    try:
        return set(read_contents(FileVersion.of(file), How()).specs) == {"inputs", "labels"}
    except CheckpointError:
        return False


def _plain(file: Path) -> str:
    """The name without numbers: the same for checkpoints of several steps, epochs or seeds."""
    return re.sub(r"\d+([.e]-?\d+)*", "#", file.stem)


def _without_parts(found: Sequence[Path], by_pattern: Mapping[Path, bool]) -> list[Path]:
    """The paths without files that a pattern found in folders among them: `runs/**/*` names all that lies there."""
    kept = {one for one in found if one.is_dir()}
    return [one for one in found if one.parent not in kept or one.is_dir() or not by_pattern.get(one, False)]


def _preferred(found: Sequence[Path], prefer: str | None, failures: list[CheckpointError]) -> list[Path]:
    """One checkpoint of each run, by its name or what the trainer wrote down; all without `prefer`."""
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
        member = members[0] if len(members) == 1 else _one_of(sorted(members, key=_order), prefer)
        if member is None:
            shown = _listed(one.name for one in members)
            failure = f"{folder}: none of its {len(members)} checkpoints is called {prefer}: {shown}"
            failures.append(CheckpointError(failure, hint="--last 1 takes the last of each run by its step"))
        else:
            chosen.append(member)
    return chosen


def _one_of(members: Sequence[Path], prefer: str) -> Path | None:
    """The checkpoint of a run that is called `best` or `last`; without such a name by what the trainer wrote down."""
    called = [one for one in members if FORMS[prefer].search(one.stem.lower())]
    plain = [one for one in called if not AVERAGED.search(one.stem.lower())] or called
    if plain:
        return min(plain, key=lambda one: len(one.name)) if prefer == "best" else plain[-1]
    if prefer == "best":
        return _best_by_trainer(members)
    numbered = [one for one in members if re.search(r"\d", one.stem)]
    return max(numbered, key=_order) if numbered else None


def _best_by_trainer(members: Sequence[Path]) -> Path | None:
    """The checkpoint that `trainer_state.json` of the last one names as the best."""
    try:
        state: Any = json.loads(read_small(members[-1] / folders.NAME, most=folders.MAX_BYTES))
        name = Path(str(state["best_model_checkpoint"])).name
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return next((one for one in members if one.name == name), None)
