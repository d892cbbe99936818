"""Looks for checkpoints in folders and below them, by names and the first bytes of files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.best_or_last import in_natural_order, listed
from soupcli.checkpoints.contents import How
from soupcli.checkpoints.earlier_soups import REPORT
from soupcli.checkpoints.formats.folders import folder as folders
from soupcli.checkpoints.formats.folders import shards
from soupcli.checkpoints.formats.folders.parts import STEPS
from soupcli.checkpoints.formats.foreign import refuse_foreign
from soupcli.checkpoints.formats.table import read_contents
from soupcli.checkpoints.formats.torch_save import is_state, is_without_tensors
from soupcli.checkpoints.open import laid_out
from soupcli.checkpoints.shell_patterns import matches
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, distinct

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

MOST_LOOKED_AT = 200_000  # folders below a word
WEIGHTS_ENDINGS = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".nemo", ".pdparams"})


def below(folder: Path) -> list[Path]:
    """Return the checkpoints in and below a folder, without soups, which have a report beside them."""
    search = FolderSearch(None, How())
    return [path for at in search.folders(folder) for path in search.at(at) if not (at / REPORT).is_file()]


def counted(paths: Sequence[Path], noun: str) -> str:
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'}"


@dataclass(frozen=True)
class FolderSearch:
    """Looks for checkpoints in folders, by names and the first bytes of files."""

    prefer: str | None
    how: How
    known: dict[Path, bool] = field(default_factory=dict)  # whether a folder is a checkpoint
    opened: dict[Path, Checkpoint] = field(default_factory=dict)  # those that had to be opened to tell
    refused: dict[Path, CheckpointError] = field(default_factory=dict)  # those that could not be

    def below(self, path: Path, notes: list[str]) -> list[Path] | None:
        """Return the checkpoints in or below a folder. Returns None if it is one itself, or if there are none."""
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
            notes.append(f"{path}: {counted(soups, 'soup')} below it passed over: {listed(map(str, soups))}")
        notes.append(_said(path, found, self.prefer))
        return found

    def is_something_else(self, path: Path) -> bool:
        """Whether nothing suggests that a path holds weights."""
        if path.is_dir():
            return not any(self.is_checkpoint(below) or _claiming(below) for below in self.folders(path))
        if not path.is_file() or _claims_weights(path) or _is_foreign(path):
            return False
        state = path.name.startswith(".") or matches(path.name, folders.TRAINER_STATE)
        return state or not folders.is_weights(path)

    def is_checkpoint(self, folder: Path) -> bool:
        """Whether a folder is one checkpoint, readable or refused by name."""
        if folder not in self.known:
            self.known[folder] = self._is_checkpoint(folder)
        return self.known[folder]

    def _is_checkpoint(self, folder: Path) -> bool:
        if self.how.weights_name is not None:
            return (folder / self.how.weights_name).is_file()
        try:
            opened = laid_out(folder, self.how)
        except CheckpointError as error:
            self.refused[folder] = error
            return True
        if opened is not None:
            self.opened[folder] = opened
            return True
        if _is_foreign(folder):
            return True
        files = _files(folder)
        return len(files) == 1 or _are_shards(folder, files)

    def at(self, folder: Path) -> list[Path]:
        """Return the checkpoints directly in a folder: the folder itself, or files in it."""
        return [folder] if self.is_checkpoint(folder) else self._series(folder)

    def _series(self, folder: Path) -> list[Path]:
        """Return the files of a folder if all are checkpoints of one kind, else the folder itself.

        A copy of another one has a name of its own, by which `prefer` may take it.
        """
        files = _files(folder, copies=self.prefer is not None)
        broken = [] if files or self.how.weights_name is not None else _claiming(folder)
        sure = not broken and (self.prefer is not None or len({_plain(file) for file in files}) <= 1)
        parts = any(shards.is_shard(file.name) for file in files)
        return files if sure and not parts else [folder]

    def folders(self, path: Path) -> Iterator[Path]:
        """Yield the folder and those below it, in natural order, without looking into checkpoints and soups."""
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
                todo += sorted(_entries(at), key=in_natural_order, reverse=True)


def _entries(folder: Path) -> list[Path]:
    """Return the sub-folders that may hold checkpoints."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []  # it cannot be listed
    return [entry for entry in entries if not entry.name.startswith((".", "__"))]


def _said(path: Path, found: Sequence[Path], prefer: str | None) -> str:
    """Return a line on how many checkpoints are below a path, and how to take one of each run if `prefer` does not."""
    runs: dict[Path, int] = {}
    for one in found:
        if one.is_file() or STEPS.fullmatch(one.name):
            runs[one.parent] = runs.get(one.parent, 0) + 1
    several = [run for run, count in runs.items() if count > 1 and run != path]
    more = ": --prefer best or last takes one of each run" if several and prefer is None else ""
    return f"{path}: {counted(found, 'checkpoint')} below it{more}"


def _claims_weights(file: Path) -> bool:
    """Whether a file's name promises weights. A broken one is then reported instead of skipped."""
    if file.suffix.lower() not in WEIGHTS_ENDINGS and not matches(file.name, ("*model*.bin",)):
        return False
    return not file.name.startswith(".") and not matches(file.name, folders.TRAINER_STATE)


def _claiming(folder: Path) -> list[Path]:
    """Return the files of a folder with such names, except arrays of examples and training state."""
    try:
        named = sorted(entry for entry in folder.iterdir() if _claims_weights(entry) and entry.is_file())
    except OSError:
        return []
    return [entry for entry in named if not _are_examples(entry) and not is_state(FileVersion.of(entry))]


def _is_foreign(path: Path) -> bool:
    """Whether a path belongs to a checkpoint that only another program can assemble."""
    try:
        refuse_foreign(path)
    except (CheckpointError, OSError):
        return True
    return False


def _are_shards(folder: Path, files: Sequence[Path]) -> bool:
    if any(shards.is_index_name(file.name) for file in files):
        return True
    whole = bool(files) and all(shards.is_shard(file.name) for file in files)
    return whole and len(shards.shard_sets(folder, [file.name for file in files])) == 1


def _files(folder: Path, *, copies: bool = False) -> list[Path]:
    """Return the files of a folder that hold weights, each content once unless `copies`."""
    try:
        found = folders.weights_in(folder)
    except OSError:
        return []
    kept = {*found} if copies else {file.path for file in distinct([FileVersion.of(entry) for entry in found])}
    return [
        entry
        for entry in found
        if entry in kept and not _are_examples(entry) and not is_without_tensors(FileVersion.of(entry))
    ]


def _are_examples(file: Path) -> bool:
    """Whether a file holds the arrays of a validation set."""
    if file.suffix != ".safetensors":
        return False
    try:
        return set(read_contents(FileVersion.of(file), How()).specs) == {"inputs", "labels"}
    except CheckpointError:
        return False


def _plain(file: Path) -> str:
    """Return the name without numbers, which is equal for several steps, epochs or seeds."""
    return re.sub(r"\d+([.e]-?\d+)*", "#", file.stem)
