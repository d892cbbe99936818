"""`labels: real.json`: the right classes of each picture, none, one or several, in a JSON file.

A map from file names, or paths below the set, to an index or a list of indices; or a list as it was published for
ImageNet's validation set (Beyer et al. 2020, arXiv:2006.07159, real.json), whose entry n is of the picture with the
number n + 1 at the end of its name. Pictures without a right class take no part. Tables for pictures of which all
classes are asked are read in label_rows.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from soupcli.datasets.label_column import without_pictures
from soupcli.datasets.prompts import read_json
from soupcli.errors import ValidationError
from soupcli.wording import suggestion

NONE = -1
MOST = 2**31  # classes


class ReadLabels(NamedTuple):
    """The places of the pictures that have labels, these, filled with -1 to one length, and what to warn of."""

    places: list[int]
    labels: list[list[int]]
    warning: str | None


def read(file: Path, folder: Path, pictures: Sequence[str]) -> ReadLabels:
    """Return the labels of pictures, paths below `folder`; the warning is of entries for other pictures.

    Raises ValidationError if a picture has no entry, or an entry is no list of indices.
    """
    content = read_json(file)
    if not isinstance(content, dict | list):
        raise ValidationError(
            f"{file}: neither a map from file names to labels nor a list",
            hint='{"a.png": [3], "b.png": [1, 5]}, or a list of such labels in the order of the files',
        )
    key_of = _number_of(file, content) if isinstance(content, list) else _name_of(file, content, pictures)
    keys: list[Any] = [key_of(picture) for picture in pictures]
    labels = [_indices(file, picture, content[key]) for picture, key in zip(pictures, keys, strict=True)]
    places = [place for place, several in enumerate(labels) if several]
    if not places:
        raise ValidationError(
            f"{file}: no picture has a label", hint="does it name the pictures as they are called in the folder?"
        )
    widest = max(len(labels[place]) for place in places)
    filled = [labels[p] + [NONE] * (widest - len(labels[p])) for p in places]
    return ReadLabels(places, filled, _unused(file, folder, content, set(keys)))


def _unused(file: Path, folder: Path, content: dict[str, Any] | list[Any], used: set[Any]) -> str | None:
    """Return a warning of entries for pictures that are not there, unless these have no right class anyway."""
    if isinstance(content, dict):
        names = [name for name, entry in content.items() if name not in used and entry != []]
    else:
        names = [f"entry {at}" for at, entry in enumerate(content, 1) if at - 1 not in used and entry != []]
    return without_pictures(names, len(content), f"entries of {file.name}", folder)


def _name_of(file: Path, entries: dict[str, Any], pictures: Sequence[str]) -> Callable[[str], str]:
    names = Counter(PurePosixPath(picture).name for picture in pictures)

    def name_of(picture: str) -> str:
        name = PurePosixPath(picture).name
        if picture in entries:
            return picture
        if name not in entries:
            raise ValidationError(
                f"{file}: has no {name!r}{suggestion(name, entries) if len(entries) < 1000 else ''}",
                hint="an empty list leaves a picture out",
            )
        if names[name] > 1:
            raise ValidationError(f"{file}: {name!r} is the name of {names[name]} pictures", hint=f"write {picture!r}")
        return name

    return name_of


def _number_of(file: Path, entries: list[Any]) -> Callable[[str], int]:
    def number_of(picture: str) -> int:
        matched = re.search(r"\d+$", PurePosixPath(picture).stem)
        number = int(matched[0]) if matched else 0
        if not 1 <= number <= len(entries):
            raise ValidationError(
                f"{file}: a list of {len(entries)} entries, and {picture!r} ends in no number from 1 to {len(entries)}",
                hint="a map goes by file names: {'a.jpg': [3]}",
            )
        return number - 1

    return number_of


def _indices(file: Path, picture: str, entry: Any) -> list[int]:
    several = entry if isinstance(entry, list) else [entry]
    if any(not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < MOST for index in several):
        raise ValidationError(f"{file}: {picture!r}: {repr(entry)[:80]} is neither a class nor a list of some")
    return sorted(set(several))
