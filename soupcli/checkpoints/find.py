"""From the words after --ckpts to checkpoints: sorted by path, numbers as numbers, each file once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.doubles import Double, without_doubles
from soupcli.checkpoints.earlier_soups import EarlierSoup, soups_among, without_output, without_soups
from soupcli.checkpoints.formats.folders.beside import look_beside, parts_beside
from soupcli.checkpoints.formats.folders.folder import pointed_to
from soupcli.checkpoints.formats.folders.parts import look_below, marker, part_folders
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.checkpoints.words import paths_of
from soupcli.errors import CheckpointError, CheckpointErrors, UsageError
from soupcli.progress import Progress, silent

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint


class Listing(NamedTuple):
    """Checkpoints in the order of their paths, lines about others, and the doubles and soups left out."""

    checkpoints: list[Checkpoint]
    notes: list[str]
    doubles: list[Double]
    soups: list[EarlierSoup]


MOST_DOUBLES = 3  # that are told one by one
ALL_THE_SAME = "left out, as they would count twice (soup mix --weights takes it all the same)"
NEEDLESS = "is not needed any more: no class in a file is imported, and nothing in it runs"


def find(
    words: Sequence[str],
    *,
    how: How | None = None,
    out: Path | None = None,
    standard_input: Iterable[str] = (),
    prefer: str | None = None,
    doubles: bool = False,
    within: Callable[[Checkpoint], Path | None] = lambda _: None,
    progress: Progress = silent,
) -> Listing:
    """Open what the words name: paths, globs, models of the Hub, or `-` for one path a line of `standard_input`.

    The old soup in the folder `out` is left out. Two paths to one file count once, and so do checkpoints with the same
    weights, unless `doubles`; a soup for `out` then leaves out soups of its other ingredients. Both count once in each
    folder that `within` names, which may hold the start of another run. `prefer` (`best` or `last`) takes one of each
    run. Raises UsageError for an empty word and for parts of one network, and CheckpointError, with a line for each,
    for words that match nothing and for paths that are no checkpoints.
    """
    named = paths_of(words, standard_input, prefer, how)
    failures = list(named.failures)
    opened: list[Checkpoint] = []
    paths, left_out = without_output(named.paths, out) if out is not None else (named.paths, [])
    notes = [*named.notes, *left_out, *(f"{flag} {NEEDLESS}" for flag, given in _needless(how) if given)]
    for done, path in enumerate(paths, 1):
        try:
            if path in named.refused:
                raise named.refused[path]
            checkpoint = named.opened.get(path) or open_checkpoint(path, how)
            notes += _left_out(path, checkpoint, how)
            opened.append(checkpoint)
        except CheckpointError as error:
            failures.append(error)
        progress("opening checkpoints", done, len(paths))
    if failures:
        failures += _empty_folders(named.passed)
        raise failures[0] if len(failures) == 1 else CheckpointErrors(failures, len(opened) + len(failures))
    kept, twice = _each_once(opened, within)
    found, copies = (kept, []) if doubles else without_doubles(kept, within)
    found, soups = without_soups(found, copies, progress) if out is not None and not doubles else (found, [])
    _refuse_parts(found)
    notes += [*twice, *_about(copies), *(f"{soup.checkpoint.path} is {soup.shown}: {ALL_THE_SAME}" for soup in soups)]
    notes += soups_among(found) if out is not None else []
    return Listing(found, [*notes, *_choices(found)], copies, soups)


def _empty_folders(passed: Sequence[Path]) -> list[CheckpointError]:
    """Return errors for folders that a glob skipped: if other checkpoints are broken, they may be broken runs too."""
    return [CheckpointError(f"{path}: holds no checkpoint") for path in passed if path.is_dir()]


def _about(doubles: Sequence[Double]) -> list[str]:
    """Return lines about checkpoints that are left out because another one has the same weights."""
    lines = [f"{one.path} holds the same weights as {other.path}: counted once" for one, other in doubles]
    more = len(lines) - MOST_DOUBLES
    return lines if more < 2 else [*lines[:MOST_DOUBLES], f"{more} more hold the same weights as another: counted once"]


def as_named(checkpoints: Sequence[Checkpoint], words: Sequence[str]) -> list[Checkpoint]:
    """Return the checkpoints in the order of the words if each is one word, else unchanged."""
    by_path = {checkpoint.path: checkpoint for checkpoint in checkpoints}
    named = [by_path[Path(word)] for word in words if Path(word) in by_path]
    return named if len(named) == len(words) == len(checkpoints) else list(checkpoints)


def _needless(how: How | None) -> list[tuple[str, bool]]:
    return [("--allow-class", bool(how and how.allow)), ("--trust", bool(how and how.trust))]


def _each_once(
    opened: Sequence[Checkpoint], within: Callable[[Checkpoint], Path | None]
) -> tuple[list[Checkpoint], list[str]]:
    """Return the checkpoints without those that were given twice, and a line for each of these."""
    kept: dict[object, Checkpoint] = {}
    notes: list[str] = []
    for checkpoint in opened:
        identity = (within(checkpoint), *((file.device, file.inode) for file in checkpoint.files))
        known = kept.setdefault(identity, checkpoint)
        if known is not checkpoint:
            notes.append(f"{checkpoint.path} is the same file as {known.path}: counted once")
    return list(kept.values()), notes


def _choices(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return notes on which weights were taken from each file, without repetition."""
    paths: dict[str, list[Path]] = {}
    for checkpoint in checkpoints:
        for note in checkpoint.origin.notes:
            paths.setdefault(note, []).append(checkpoint.path)
    return [
        f"{first}{f' and {len(others)} more' if others else ''}: {note}" for note, (first, *others) in paths.items()
    ]


def _left_out(path: Path, checkpoint: Checkpoint, how: How | None) -> list[str]:
    """Return lines about checkpoints below the folder of a checkpoint that are not part of it."""
    folder = (pointed_to(path) or path) if path.is_dir() else _fetched(checkpoint)
    if folder is None:
        return []
    below = look_below(folder, checkpoint, lambda below: open_checkpoint(below, how))
    if how is not None and how.weights_name is not None:
        beside, parts = [], parts_beside(folder, checkpoint)
    else:
        beside, parts = look_beside(folder, checkpoint), []
    found = (("sub-folders", below), ("other files", beside))
    return [
        *(
            f"{path}: its {what} are not mixed, they hold other checkpoints or forms: {_first(others)}"
            for what, others in found
            if others
        ),
        *([f"{path}: {_first(parts)} is not mixed and not in the soup, it holds other tensors"] if parts else []),
    ]


def _fetched(checkpoint: Checkpoint) -> Path | None:
    """The folder of a model of the Hub in its cache."""
    return checkpoint.side_folder if checkpoint.origin.revision is not None else None


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


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
