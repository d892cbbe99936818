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
from typing import Any

from soupcli.datasets.prompts import read_json
from soupcli.errors import ValidationError
from soupcli.wording import suggestion

NONE = -1
MOST = 2**31  # classes


def read(file: Path, pictures: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Places of the pictures (paths below the set) that have labels, and these labels, filled with -1 to one length.

    Raises ValidationError if a picture has no entry, or an entry is no list of indices.
    """
    content = read_json(file)
    if not isinstance(content, dict | list):
        raise ValidationError(
            f"{file}: neither a map from file names to labels nor a list",
            hint='{"a.png": [3], "b.png": [1, 5]}, or a list of such labels in the order of the files',
        )
    entry_of = _of_number(file, content) if isinstance(content, list) else _of_name(file, content, pictures)
    labels = [_indices(file, picture, entry_of(picture)) for picture in pictures]
    places = [place for place, several in enumerate(labels) if several]
    if not places:
        raise ValidationError(
            f"{file}: no picture has a label", hint="does it name the pictures as they are called in the folder?"
        )
    widest = max(len(labels[place]) for place in places)
    return places, [labels[p] + [NONE] * (widest - len(labels[p])) for p in places]


def _of_name(file: Path, entries: dict[str, Any], pictures: Sequence[str]) -> Callable[[str], Any]:
    names = Counter(PurePosixPath(picture).name for picture in pictures)

    def entry_of(picture: str) -> Any:
        name = PurePosixPath(picture).name
        if picture in entries:
            return entries[picture]
        if name not in entries:
            raise ValidationError(
                f"{file}: has no {name!r}{suggestion(name, entries) if len(entries) < 1000 else ''}",
                hint="an empty list leaves a picture out",
            )
        if names[name] > 1:
            raise ValidationError(f"{file}: {name!r} is the name of {names[name]} pictures", hint=f"write {picture!r}")
        return entries[name]

    return entry_of


def _of_number(file: Path, entries: list[Any]) -> Callable[[str], Any]:
    def entry_of(picture: str) -> Any:
        matched = re.search(r"\d+$", PurePosixPath(picture).stem)
        number = int(matched[0]) if matched else 0
        if not 1 <= number <= len(entries):
            raise ValidationError(
                f"{file}: a list of {len(entries)} entries, and {picture!r} ends in no number from 1 to {len(entries)}",
                hint="a map goes by file names: {'a.jpg': [3]}",
            )
        return entries[number - 1]

    return entry_of


def _indices(file: Path, picture: str, entry: Any) -> list[int]:
    several = entry if isinstance(entry, list) else [entry]
    if any(not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < MOST for index in several):
        raise ValidationError(f"{file}: {picture!r}: {repr(entry)[:80]} is neither a class nor a list of some")
    return sorted(set(several))
