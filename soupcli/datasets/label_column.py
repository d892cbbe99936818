"""Tables beside a folder of pictures: which row is a picture's, and a column that holds the class of each.

file,label              # or without this line
a.png,cat               # names of classes, or numbers of all of them
b.png,dog

Tables with a column of 0 and 1 for each class are read further in label_rows.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from soupcli.datasets.class_names import listed, match
from soupcli.datasets.image_folders import SUFFIXES
from soupcli.datasets.rows import Row, class_names, read_rows
from soupcli.errors import ValidationError
from soupcli.wording import suggestion

FILE_NAME = "file_name"  # the column of pictures' names in the tables of `datasets`; any other table has them first
LABEL_COLUMNS = ("label", "labels", "class", "target", "rating", "sentiment", "category", "stars", "score", "y")
SHOWN = 3  # names in a warning
BITS = ("0", "1", "0.0", "1.0", "true", "false")


class PictureTable(NamedTuple):
    """All rows of a table, the columns of labels, the row of each picture by its place, and what to warn of."""

    rows: Sequence[Row]
    columns: list[str]
    row_of: dict[int, int]
    warning: str | None

    def classes(self, column: str | None) -> list[str]:
        """Return the names of the classes: those in the column, or without one the columns of 0 and 1."""
        return self.columns if column is None else sorted({str(row.get(column)).strip() for row in self.rows})


class NamedClasses(NamedTuple):
    """The class of each picture of a table, in the order of `row_of`, and whether they are numbers of logits."""

    names: list[str]
    numbered: bool


def with_header_row(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows, and before them the header if it begins with a picture: the file has no header."""
    headless = rows and Path(next(iter(rows[0]))).suffix.lower() in SUFFIXES
    return [{name: name for name in rows[0]}, *rows] if headless else rows


def picture_column(row: Row) -> str:
    """Return the name of the column that names the picture."""
    return FILE_NAME if FILE_NAME in row else next(iter(row))


def are_bits(rows: Sequence[Row], column: str) -> bool:
    """Whether the column has nothing but 0 and 1."""
    return all(str(row.get(column)).strip().lower() in BITS for row in rows)


def class_column(rows: Sequence[Row], columns: Sequence[str], *, chosen: bool) -> str | None:
    """Return the one column that holds each picture's class, or None if columns are classes themselves.

    One column of 0 and 1 is a class, unless it is called `label` or alike and the recipe does not list it.
    """
    if len(columns) != 1:
        return None
    called_label = not chosen and columns[0].lower() in LABEL_COLUMNS
    return columns[0] if called_label or not are_bits(rows, columns[0]) else None


def table_of(file: Path, folder: Path, pictures: Sequence[str], columns: Sequence[str] | None) -> PictureTable:
    """Read the rows of a csv, tsv, jsonl or parquet file for `pictures`, paths below `folder`.

    Pictures go by the column `file_name`, else the first: a path, a name, or a name without its ending. Labels are in
    `columns`, else all others. A table may have rows for more pictures, or the folder more pictures than rows, which
    the warning says. Raises ValidationError if both have others, and if a picture has two rows.
    """
    rows = with_header_row(read_rows(file, ()))
    names = picture_column(rows[0])
    labels = list(columns) if columns is not None else [name for name in rows[0] if name != names]
    for column in labels:
        if column not in rows[0] or column == names:
            near = suggestion(column, rows[0])
            raise ValidationError(
                f"{file}: has no column {column!r}{near}", hint=f"its columns are {listed(list(rows[0]))}"
            )
    places = _places(file, [str(row.get(names)) for row in rows], names)
    below = Path(os.path.relpath(folder, file.parent)).as_posix()
    row_of = {at: row for at, name in enumerate(pictures) if (row := _row_of(name, below, places)) is not None}
    _check_own_rows(file, pictures, row_of)
    unnamed = [name for at, name in enumerate(pictures) if at not in row_of]
    named = set(row_of.values())
    absent = [str(row.get(names)) for at, row in enumerate(rows) if at not in named]
    if unnamed and absent:
        raise _unlike(file, unnamed, absent, places, names)
    if unnamed:
        warning = f"{left_out(unnamed, len(pictures), 'pictures')} have no row in {file.name}: they take no part"
        return PictureTable(rows, labels, row_of, warning)
    return PictureTable(rows, labels, row_of, without_pictures(absent, len(rows), f"rows of {file.name}", folder))


def without_pictures(names: Sequence[str], of: int, what: str, folder: Path) -> str | None:
    """Return a warning that a file of labels names pictures that are not in the folder; None if it does not."""
    return f"{left_out(names, of, what)} have no picture in {folder}: they take no part" if names else None


def left_out(names: Sequence[str], of: int, what: str) -> str:
    """Return how many of `of` things these are, and the first of them."""
    return f"{len(names):,} of {of:,} {what} ({listed(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"


def classes_in(file: Path, table: PictureTable, column: str, label_names: Sequence[str] | None) -> NamedClasses:
    """Read the class of each picture. Raises ValidationError for an empty cell, and for names beside numbers.

    Digits are numbers of logits; if the network has classes of such names in other places, they are an error.
    """
    own_names = class_names(file, column)
    classes = [_class(file, number, column, row.get(column), own_names) for number, row in enumerate(table.rows, 1)]
    digits = [_is_number(name) for name in classes]
    if any(digits) and not all(digits):
        row, other = digits.index(True), digits.index(False)
        raise ValidationError(
            f"{file}: row {row + 1}: {column} {classes[row]!r} is a number, row {other + 1}: {classes[other]!r} a name",
            hint="labels are all names, or all numbers",
        )
    found = match(sorted(set(classes)), label_names or ()).places
    if all(digits) and any(place != int(name) for name, place in found.items()):
        raise ValidationError(
            f"{file}: {column} {listed(sorted(found))} may be class numbers, or names of the network's classes "
            f"{listed(list(label_names or ()))}",
            hint="class_to_index: {'1': 0} says which logit each of them is",
        )
    return NamedClasses(
        [str(int(classes[row])) if digits[row] else classes[row] for row in table.row_of.values()], all(digits)
    )


def _class(file: Path, number: int, column: str, value: Any, own_names: Sequence[str] | None) -> str:
    if isinstance(value, int) and own_names is not None and 0 <= value < len(own_names):
        return own_names[value]
    if isinstance(value, bool | float | list | dict) or value is None or not str(value).strip():
        raise ValidationError(
            f"{file}: row {number}: {column} is {repr(value)[:80]}, neither the name of a class nor its number",
            hint="rows of unknown labels are left out of a file",
        )
    return str(value).strip()


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10


def _places(file: Path, names: Sequence[str], column: str) -> Mapping[str, int]:
    """Return the row of each name, counted from 0."""
    places: dict[str, int] = {}
    for place, name in enumerate(map(_path, names)):
        if places.setdefault(name, place) != place:
            raise ValidationError(f"{file}: row {place + 1}: {column} {name!r} is that of row {places[name] + 1}, too")
    return places


def _path(name: str) -> str:
    """Return a path as pictures are named: without `./`, with slashes for the backslashes of Windows."""
    return str(PurePosixPath(name if "/" in name else name.replace("\\", "/")))


def _check_own_rows(file: Path, pictures: Sequence[str], row_of: Mapping[int, int]) -> None:
    """Raises ValidationError for a row that would be of two pictures, such as of one name in two folders."""
    first_of: dict[int, str] = {}
    for at, row in row_of.items():
        other = first_of.setdefault(row, pictures[at])
        if other != pictures[at]:
            raise ValidationError(
                f"{file}: row {row + 1} may be of {other!r} or of {pictures[at]!r}",
                hint="the column of names takes paths below the set, with their endings",
            )


def _row_of(picture: str, below: str, places: Mapping[str, int]) -> int | None:
    """Return the row of a picture. Names in a table may begin at the table's folder, where pictures lie `below`."""
    path = PurePosixPath(picture)
    named = (picture, str(below / path), path.name, path.stem)
    return next((places[name] for name in named if name in places), None)


def _unlike(
    file: Path, unnamed: Sequence[str], absent: Sequence[str], places: Mapping[str, int], column: str
) -> ValidationError:
    near = suggestion(PurePosixPath(unnamed[0]).name, places) if len(places) < 1000 else ""
    counted = f"{len(unnamed):,} such pictures, {len(absent):,} such rows, {absent[0]!r} for one"
    return ValidationError(
        f"{file}: no row whose column {column!r} is {unnamed[0]!r}{near}, and rows without a picture ({counted})",
        hint="images: is the folder that the names in the table begin at, or that of the table's own pictures",
    )
