"""Checks that rows which stand for tokens stand for the same ones in all checkpoints.

notes = check_tokens(first, other, selection)           # raises MixError, naming both numbers of one token
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from soupcli.checkpoints.compare.class_files import folder_names, folders_of
from soupcli.checkpoints.compare.compared_files import compared_files
from soupcli.checkpoints.compare.documents import OF_TORCH
from soupcli.checkpoints.compare.token_lists import (
    ADDED,
    ALIKE,
    BELOW,
    CONFIG,
    FAMILIES,
    MERGES,
    NAMED,
    OF_LANGUAGES,
    TOKENS,
    Tokens,
    language_of,
    numbers_tokens,
    of_any,
    of_language,
    of_merges,
    of_torch,
)
from soupcli.checkpoints.formats.class_lists import plain_name
from soupcli.checkpoints.formats.class_words import LETTERS, TOKEN_KEYS
from soupcli.checkpoints.formats.folders.folder import SIDE_FILES
from soupcli.checkpoints.shell_patterns import matches
from soupcli.checkpoints.side_files import is_weights, leads_inside
from soupcli.errors import MixError
from soupcli.files.gzip_files import read_unpacked
from soupcli.files.json_text import TooManyValuesError
from soupcli.files.small_file import same_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.tensor_filter import TensorFilter

SEPARATORS = ("_", "-", ".")  # between the stem of a file of weights and what another file is
MAX_BYTES = 1 << 26  # of a file that lists tokens: the largest has half of that
# Folders of a run with lists of tokens, and how many below `data/` are looked into.
OF_TOKENIZER = re.compile(
    r"((my|new|trained)[_-]?)?(tokeni[sz]er|(pre)?processor|vocab(ulary)?|lang)s?([_-].*)?", re.IGNORECASE
)
DATA, MOST_FOLDERS = "data", 20

MOST_MORE = 2  # rows of a table beyond those of the tokens: padding, and what is not known
OF_TOKENS = re.compile(r"embed|(^|\.)(wte|emb|shared|lm_head|output)\b", re.IGNORECASE)  # in names of their tables
# Tokens that stand for nothing until a user names them: `[unused1]`, `<|reserved_special_token_5|>`, `<extra_id_0>`.
UNUSED = re.compile(r"unused|reserved|extra|madeup|placeholder|dummy|filler|special_?\d|custom_?token|(^|\W)pad", re.I)
LONGEST = 100  # letters of a token in a message
MARKS = re.compile("[\u0120\u2581\u010a]|^##|</w>$")

List: TypeAlias = "tuple[Path, Tokens]"  # a file, and how it is read


class _TooLarge(Exception):
    """A file of more tokens than any tokenizer has, which is not read."""


def check_tokens(first: Checkpoint, other: Checkpoint, selection: TensorFilter) -> list[str]:
    """Raise MixError if a token has another number in the other's files; return what cannot be compared."""
    notes: list[str] = []
    for one, two in _pairs(first, other):
        try:
            if one[1] != two[1] or not same_bytes(one[0], two[0]):
                lists = (str(one[0]), _tokens(*one)), (str(two[0]), _tokens(*two))
                _check_numbers(first, selection, *lists, added=one[1] in ADDED[1:])
        except _TooLarge as cause:
            notes.append(f"{cause}: tokens of {first.path} and {other.path} are not compared")
    return notes


def check_vocabulary(
    first: Checkpoint,
    other: Checkpoint,
    selection: TensorFilter,
    place: str,
    names: Sequence[str],
    others: Sequence[str],
) -> None:
    """Raise MixError if both list tokens at `place`, in a file or in its settings, and one has two numbers."""
    key = place.rpartition(": ")[2].rpartition(".")[2]
    if TOKEN_KEYS.fullmatch(key) or LETTERS.fullmatch(key):
        said = f"{first.path}: {place}", f"{other.path}: {place}"
        _check_numbers(first, selection, (said[0], _in_order(names)), (said[1], _in_order(others)))


def _in_order(names: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}


def _pairs(first: Checkpoint, other: Checkpoint) -> Iterator[tuple[List, List]]:
    """Yield pairs of files that number the same tokens, folder by folder."""
    one, two = (_by_folder(checkpoint) for checkpoint in (first, other))
    for folder in one:
        if folder in two:
            yield from _pairs_in(one[folder], two[folder])


def _by_folder(checkpoint: Checkpoint) -> dict[str, dict[str, Path]]:
    """Return the files beside the weights by their folder and name. Of a bare file, also those of its run."""
    found = compared_files(checkpoint)
    if checkpoint.files:
        found = _of_run(checkpoint) | found
    folders: dict[str, dict[str, Path]] = {}
    for label, file in found.items():
        path = PurePosixPath(label)
        folders.setdefault(str(path.parent), {})[path.name] = file
    return folders


def _of_run(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return the files of its run by their names, and those with the stem of the weights by what is left of theirs.

    `tokens.txt` of `run_3.pt` is `run_3-tokens.txt` or `tokens_run_3.txt`, else the `tokens.txt` of all. Kaldi's kin
    (icefall, wenet) keep theirs in `data/lang_char/` of the run, others in `tokenizer/` beside `model/`.
    """
    stem, found = min(file.path for file in checkpoint.files).stem, dict[str, Path]()
    for folder in folders_of(checkpoint)[::-1]:
        for below in _folders_of_tokens(folder, folder.stat().st_mtime_ns):
            found |= {file.relative_to(folder).as_posix(): file for file in _lists_in(below)}
        names, listed = _names_in(folder, folder.stat().st_mtime_ns)
        own = ((rest, name) for name in names if stem in name and (rest := _without(stem, name)) is not None)
        labels = [*((name, name) for name in listed), *(pair for pair in own if _lists_tokens(pair[0]))]
        files = ((label, folder / name) for label, name in labels)
        found |= {label: file for label, file in files if file.is_file() and leads_inside(file, folder)}
    return found


@lru_cache(maxsize=64)  # of many files of weights in one folder each asks
def _folders_of_tokens(run: Path, _time: int) -> list[Path]:
    """Return the folders of a run that may hold lists of tokens: `tokenizer/`, and those below its `data/`."""
    below = [run / name for name in folder_names(run) if OF_TOKENIZER.fullmatch(name)]
    of_data = [run / DATA / name for name in folder_names(run / DATA)]
    return [*below, *(of_data if len(of_data) <= MOST_FOLDERS else ())]  # a data set has too many to look into


def _lists_in(folder: Path) -> list[Path]:
    listed = (folder / name for name in _names_in(folder, folder.stat().st_mtime_ns)[1])
    return [file for file in listed if file.is_file() and leads_inside(file, folder)]


@lru_cache(maxsize=64)  # of many files of weights in one folder each asks
def _names_in(folder: Path, _time: int) -> tuple[list[str], list[str]]:
    """Return the names of files that may be lists, of which a folder of many weights has few, and of those that are."""
    names = sorted(os.listdir(folder))  # noqa: PTH208 - a Path for each of very many files takes long
    listed = list(filter(_lists_tokens, names))
    known = set(listed)
    return [name for name in names if name in known or not is_weights(name)], listed


KNOWN = (*SIDE_FILES, *NAMED)


def _lists_tokens(name: str) -> bool:
    return (matches(name, KNOWN) and not is_weights(name)) or numbers_tokens(name)


def _without(stem: str, name: str) -> str | None:
    """Return what is left of a file's name without the stem of the weights, or None if it is not in it."""
    if name.startswith(stem) and name[len(stem) : len(stem) + 1] in SEPARATORS:
        return name[len(stem) + 1 :]
    within = next((mark for sign in SEPARATORS if (mark := f"{sign}{stem}.") in name), None)
    return name.replace(within, ".", 1) if within is not None else None


def _pairs_in(one: Mapping[str, Path], two: Mapping[str, Path]) -> Iterator[tuple[List, List]]:
    """Yield the pairs of one folder. Of each family the first that both have: others follow from it."""
    found: dict[Tokens, tuple[List, List]] = {}
    for kinds in FAMILIES:
        shared = next((kind for kind in kinds if kind.name in one and kind.name in two), None)
        if shared is not None:
            found[shared] = (one[shared.name], shared), (two[shared.name], shared)
    yield from found.values()
    languages = [language_of(each[CONFIG]) if CONFIG in each else "" for each in (one, two)]
    if OF_LANGUAGES in one and OF_LANGUAGES in two and all(languages) and languages[0] != languages[1]:
        of_one, of_two = (Tokens(OF_LANGUAGES, partial(of_language, language)) for language in languages)
        yield (one[OF_LANGUAGES], of_one), (two[OF_LANGUAGES], of_two)
    if not found.keys().isdisjoint(TOKENS):
        return
    alike = [[(each[kind.name], kind) for kind in ALIKE if kind.name in each] for each in (one, two)]
    if all(alike):
        yield alike[0][0], alike[1][0]
        return
    numbered = [{name for name in each if name in NAMED or numbers_tokens(name)} for each in (one, two)]
    for name in one:
        if name in two and name in numbered[0] and name not in NAMED:
            kind = Tokens(name, partial(of_any, name))
            yield (one[name], kind), (two[name], kind)
        elif name in two and matches(name, MERGES) and not any(numbered):
            yield (one[name], kind := Tokens(name, of_merges)), (two[name], kind)


def _check_numbers(
    first: Checkpoint,
    selection: TensorFilter,
    of_first: tuple[str, Mapping[str, int]],
    of_other: tuple[str, Mapping[str, int]],
    *,
    added: bool = False,
) -> None:
    """Raise MixError if a token that both list has two numbers, or a number two tokens, and a table has such rows.

    Lists of `added` tokens extend a vocabulary that other files give.
    """
    (one, ids), (two, others) = of_first, of_other
    token = next((token for token, row in ids.items() if others.get(token, row) != row), None)
    renamed = _renamed(ids, others, added=added) if token is None else None
    if token is None and renamed is None:
        return
    rows = max([*ids.values(), *others.values()], default=0) + 1
    table = _table(first, selection, rows, exact=renamed is not None)
    if table is None:
        return
    if token is not None:
        raise MixError(
            f"{two}: the token {_shown(token)} is number {others[token]}, in {one} it is {ids[token]}: rows of "
            f"{table!r} stand for other tokens",
            hint="mix networks with one tokenizer: bring the rows of one into the order of the other (mergekit: "
            "tokenizer_source), or leave it out; if the list numbers no rows of these networks, write one into both",
        )
    assert renamed is not None
    row, name, other = renamed
    raise MixError(
        f"{two}: number {row} is the token {_shown(other)}, in {one} it is {_shown(name)}: a row of {table!r} stands "
        "for two tokens",
        hint="if it is one token under two names, write one name into both; else give each token its own number in "
        "both tokenizers, and both networks a row for each (mergekit: tokenizer_source: union), or leave one out",
    )


def _table(first: Checkpoint, selection: TensorFilter, rows: int, *, exact: bool) -> str | None:
    """Return the mixed weight that has the closest number of rows for tokens.

    Names that differ are no proof as numbers that differ are: `exact` asks for a table of tokens by its name, or with
    as many rows.
    """
    shapes = {name: first.tensors[name].shape for name in tables(first, selection)}
    fitting = [name for name, shape in shapes.items() if shape[0] >= rows]
    if exact:
        fitting = [name for name in fitting if OF_TOKENS.search(name) or shapes[name][0] <= rows + MOST_MORE]
    return min(fitting, key=lambda name: (len(shapes[name]) != 2, shapes[name][0]), default=None)


def _renamed(ids: Mapping[str, int], others: Mapping[str, int], *, added: bool) -> tuple[int, str, str] | None:
    """Return the first number of two tokens, and both; None if all of its names are alike or stand for no token yet."""
    names: dict[int, list[str]] = {}
    for token, row in others.items():
        names.setdefault(row, []).append(token)
    same = {row for token, row in ids.items() if others.get(token) == row}
    if not added and len(same) * 2 < min(len(ids), len(others)):  # not one vocabulary that was extended twice
        return None
    for token, row in ids.items():
        if row in same or row not in names:
            continue
        other = names[row][0]
        if not any(map(UNUSED.search, (token, other))) and _plain(token) not in map(_plain, names[row]):
            return row, token, other
    return None


def _plain(token: str) -> str:
    """Return a token without case, brackets and the marks of a word's beginning, in which libraries differ."""
    return plain_name(MARKS.sub("", token))


def _shown(token: str) -> str:
    """Return a token for a message, with the key that leads to its list."""
    above, _, own = token.rpartition(BELOW)
    short = repr(own if len(own) <= LONGEST else f"{own[:LONGEST]}...")
    return f"{short} of {above.replace(BELOW, '.')}" if above else short


def tables(checkpoint: Checkpoint, selection: TensorFilter) -> list[str]:
    """Return the mixed weights that have rows. Of an adapter only those that it changes."""
    tensors = ((name, spec) for name, spec in checkpoint.tensors.items() if name not in checkpoint.inherited)
    return [name for name, spec in tensors if spec.shape and spec.dtype.is_floating_point and selection.mixes(name)]


def _tokens(file: Path, kind: Tokens) -> Mapping[str, int]:
    """Return each token's number, or {} if the file cannot be read, which its users report. Raises _TooLarge."""
    try:
        of_pickle = file.suffix.lower() in OF_TORCH
        found = of_torch(file) if of_pickle else kind.read(read_unpacked(file, most=MAX_BYTES))
        return {str(token): row for token, row in found.items() if type(row) is int}
    except TooManyValuesError as cause:
        raise _TooLarge(f"{file}: {cause}") from cause
    except OSError as cause:
        if cause.errno == errno.EFBIG:
            raise _TooLarge(f"{file}: {cause.strerror}") from cause
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
