"""From the words after --ckpts to checkpoints: sorted by path, numbers as numbers, each file once."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.earlier_soups import soups_among, without_output
from soupcli.checkpoints.formats.folder import pointed_to
from soupcli.checkpoints.formats.parts import look_below, marker, part_folders
from soupcli.checkpoints.hub import hub_reference
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import CheckpointError, CheckpointErrors, UsageError
from soupcli.files.reading import same_content
from soupcli.progress import Progress, silent
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint


class Listing(NamedTuple):
    """Checkpoints in the order of their paths, and a line for each that was given twice."""

    checkpoints: list[Checkpoint]
    notes: list[str]


NEEDLESS = "is not needed any more: no class in a file is imported, and nothing in it runs"


def find(
    words: Sequence[str],
    *,
    how: How | None = None,
    out: Path | None = None,
    standard_input: Iterable[str] = (),
    progress: Progress = silent,
) -> Listing:
    """Opens what the words name: paths, globs, models of the Hub, or `-` for one path a line of `standard_input`.

    The old soup in the folder `out` is no ingredient of the new one. Two paths to one file count once, as do copies of
    a training checkpoint in one folder. Raises UsageError for an empty word and for parts of one network, and
    CheckpointError, with a line for each, if paths or globs match nothing or are no checkpoints.
    """
    failures: list[CheckpointError] = []
    paths = _paths(words, standard_input, failures)
    opened: list[Checkpoint] = []
    paths, left_out = without_output(paths, out) if out is not None else (paths, [])
    notes = [*left_out, *(f"{flag} {NEEDLESS}" for flag, given in _needless(how) if given)]
    for done, path in enumerate(paths, 1):
        try:
            checkpoint = open_checkpoint(path, how)
            notes += _left_out(path, checkpoint, how)
            opened.append(checkpoint)
        except CheckpointError as error:
            failures.append(error)
        progress("opening checkpoints", done, len(paths))
    if failures:
        raise failures[0] if len(failures) == 1 else CheckpointErrors(failures, len(opened) + len(failures))
    kept, doubles = _each_once(opened)
    _refuse_parts(kept)
    soups = soups_among(kept) if out is not None else []
    return Listing(kept, [*notes, *doubles, *soups, *_choices(kept)])


def _paths(words: Sequence[str], standard_input: Iterable[str], failures: list[CheckpointError]) -> list[Path]:
    """The paths that the words name, in natural order; words that name nothing are added to `failures`."""
    paths: set[Path] = set()
    for word in words:
        try:
            paths.update(_expand(word, standard_input))
        except CheckpointError as error:
            failures.append(error)
    return sorted(paths, key=lambda path: natural_order(str(path)))


def _needless(how: How | None) -> list[tuple[str, bool]]:
    return [("--allow-class", bool(how and how.allow)), ("--trust", bool(how and how.trust))]


def _each_once(opened: Sequence[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    """The checkpoints without those that were given twice, and a line for each of these."""
    kept: dict[tuple[tuple[int, int], ...], Checkpoint] = {}
    copies: dict[tuple[Path, int], list[Checkpoint]] = {}
    notes: list[str] = []
    for checkpoint in opened:
        identity = tuple((file.device, file.inode) for file in checkpoint.files)
        known = kept.get(identity)
        if known is not None:
            notes.append(f"{checkpoint.path} is the same file as {known.path}: counted once")
        elif (known := _copied(checkpoint, copies)) is not None:
            notes.append(f"{checkpoint.path} is a copy of {known.path}: counted once")
        else:
            kept[identity] = checkpoint
    return list(kept.values()), notes


def _choices(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Notes on which weights each file gave, without repetition."""
    paths: dict[str, list[Path]] = {}
    for checkpoint in checkpoints:
        for note in checkpoint.origin.notes:
            paths.setdefault(note, []).append(checkpoint.path)
    return [
        f"{first}{f' and {len(others)} more' if others else ''}: {note}" for note, (first, *others) in paths.items()
    ]


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
    """The checkpoint that this one copies: trainers leave copies named `last` and `model_best`."""
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
    if Path(word).exists() or Path(word).is_symlink():
        return [Path(word)]
    pattern = str(Path(word).expanduser()) + ("/" if word.endswith("/") else "")
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - the word is a shell's pattern, not a folder and one
    if matches:
        return [Path(match) for match in matches]
    if hub_reference(word) is not None:
        return [Path(word)]
    if glob.has_magic(word):
        raise CheckpointError(f"{word}: the glob matches nothing", hint=_nearest_folder(word))
    raise CheckpointError(f"{word}: no such file or folder", hint=_nearest_folder(word))


def _nearest_folder(word: str) -> str:
    folder = next((parent for parent in Path(word).parents if parent.is_dir()), Path())
    names = sorted((entry.name for entry in folder.iterdir()), key=natural_order)[:8]
    return f"{folder} holds {', '.join(names) or 'nothing'}"
