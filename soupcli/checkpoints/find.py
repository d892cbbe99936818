"""From the words after --ckpts to checkpoints: sorted by path, numbers as numbers, each file once."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.formats.folder import pointed_to
from soupcli.checkpoints.formats.parts import look_below, marker, part_folders
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import CheckpointError, UsageError
from soupcli.files.reading import same_content
from soupcli.progress import Progress, silent
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint


class Found(NamedTuple):
    """Checkpoints in the order of their paths, and a line for each that was given twice."""

    checkpoints: list[Checkpoint]
    notes: list[str]


def find(
    words: Sequence[str],
    *,
    how: How | None = None,
    standard_input: Iterable[str] = (),
    progress: Progress = silent,
) -> Found:
    """Opens what the words name: paths, globs, or `-` for one path a line of `standard_input`.

    Two paths to one file count once, as do copies of a training checkpoint in one folder. Raises UsageError for an
    empty word, CheckpointError where a path or glob matches nothing or is no checkpoint.
    """
    paths = sorted(
        {path for word in words for path in _expand(word, standard_input)}, key=lambda path: natural_order(str(path))
    )
    kept: dict[tuple[tuple[int, int], ...], Checkpoint] = {}
    copies: dict[tuple[Path, int], list[Checkpoint]] = {}
    notes: list[str] = []
    for done, path in enumerate(paths, 1):
        checkpoint = open_checkpoint(path, how)
        notes += _left_out(path, checkpoint, how)
        identity = tuple((file.device, file.inode) for file in checkpoint.files)
        known = kept.get(identity)
        if known is not None:
            notes.append(f"{path} is the same file as {known.path}: counted once")
        elif (known := _copied(checkpoint, copies)) is not None:
            notes.append(f"{path} is a copy of {known.path}: counted once")
        else:
            kept[identity] = checkpoint
        progress("opening checkpoints", done, len(paths))
    _refuse_parts(list(kept.values()))
    return Found(list(kept.values()), notes)


def _left_out(path: Path, checkpoint: Checkpoint, how: How | None) -> list[str]:
    """Lines about what lies below the folder of a checkpoint, and is not a part of it."""
    if not path.is_dir():
        return []
    folder = pointed_to(path) or path
    others = look_below(folder, checkpoint, lambda below: open_checkpoint(below, how))
    shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    return [f"{path}: its sub-folders are not mixed, they hold other checkpoints or forms: {shown}"] if others else []


def _refuse_parts(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises UsageError if two checkpoints are parts of one network."""
    folders: dict[Path, Path] = {}
    for path in (checkpoint.path for checkpoint in checkpoints):
        whole = path.absolute().parent
        if path.is_dir() and marker(whole) is not None and path.name in part_folders(whole):
            if whole in folders:
                raise UsageError(
                    f"--ckpts: {folders[whole]} and {path} are parts of one network, by {marker(whole)} beside them",
                    hint=f"give the folders of several networks: --ckpts '{path.parent.parent}/*/'",
                )
            folders[whole] = path


def _copied(checkpoint: Checkpoint, copies: dict[tuple[Path, int], list[Checkpoint]]) -> Checkpoint | None:
    """The checkpoint of which this one is a copy: trainers leave copies beside it, named `last` and `model_best`."""
    if checkpoint.origin.key is None or len(checkpoint.files) != 1:
        return None
    file = checkpoint.files[0]
    beside = copies.setdefault((file.path.parent, file.size), [])
    known = next((other for other in beside if same_content(file, other.files[0])), None)
    beside.append(checkpoint)
    return known


def _expand(word: str, standard_input: Iterable[str]) -> list[Path]:
    if word == "-":
        lines = [line.rstrip("\r\n") for line in standard_input]
        paths = [Path(line) for line in lines if line.strip()]
        if not paths:
            raise UsageError("--ckpts -: standard input has no path", hint="ls -d runs/*/ | soup ... --ckpts -")
        return paths
    if not word.strip():
        raise UsageError("--ckpts: an empty word", hint="is a shell variable unset?")
    if Path(word).exists():
        return [Path(word)]
    pattern = str(Path(word).expanduser()) + ("/" if word.endswith("/") else "")
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - the word is a shell's pattern, not a folder and one
    if matches:
        return [Path(match) for match in matches]
    if glob.has_magic(word):
        raise CheckpointError(f"{word}: the glob matches nothing", hint=_nearest_folder(word))
    raise CheckpointError(f"{word}: no such file or folder", hint=_nearest_folder(word))


def _nearest_folder(word: str) -> str:
    folder = next((parent for parent in Path(word).parents if parent.is_dir()), Path())
    names = sorted((entry.name for entry in folder.iterdir()), key=natural_order)[:8]
    return f"{folder} holds {', '.join(names) or 'nothing'}"
