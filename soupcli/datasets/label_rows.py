"""Labels that are rows of 0 and 1, a column for each class: an example may have any number of classes.

    of_columns(file, rows, ["toxic", "insult"], label_names)     # one column of a table for each class
    of_lists(file, [["insult"], []], label_names)                # one column of lists: of names, class numbers, or rows
    of_table(file, table, names)                                 # a table beside a folder of pictures

A table of pictures may have one column of classes in place of these: then labels are read in label_column.py.
Labels are uint8 [N, K], in the order of the network's logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.datasets.class_names import listed, match
from soupcli.errors import ValidationError
from soupcli.late import torch
from soupcli.report.scores import ClassOrder
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.datasets.label_column import PictureTable
    from soupcli.datasets.rows import Row

SHOWN = 80  # letters of a value in a message
WAY_OUT = (
    "if that list is of the logits, write label: in its order; else a file classes.txt beside the weights says the "
    "order of the logits, a class a line"
)


class LabelRows(NamedTuple):
    """A 0 or 1 for each class of each example, and the source of the order of classes."""

    rows: Sequence[Sequence[int]]
    order: ClassOrder

    @property
    def labels(self) -> Tensor:
        """The rows as uint8 [N, K]."""
        return torch.tensor(self.rows, dtype=torch.uint8)


def of_columns(
    file: Path, rows: Sequence[Row], columns: Sequence[str], label_names: Sequence[str] | None, *, chosen: bool = True
) -> LabelRows:
    """Read one class from each column, in the network's order of names if it has the same ones, else as given.

    `chosen` says that the recipe lists them. Raises ValidationError for a value that is neither 0 nor 1, and for names
    that differ from the network's.
    """
    ordered, by = _in_order(file, columns, label_names, chosen=chosen)
    labels = [[_bit(file, number, column, row.get(column)) for column in ordered] for number, row in enumerate(rows, 1)]
    index = {name: place for place, name in enumerate(ordered[:100])}
    return LabelRows(labels, ClassOrder(by=by, count=len(ordered), index=index))


def of_lists(file: Path, values: Sequence[Any], label_names: Sequence[str] | None) -> LabelRows:
    """Read a list for each example: names of its classes, their numbers, or a 0 or 1 for each class.

    Raises ValidationError for anything else, and for lists of numbers that can be read both ways.
    """
    for number, value in enumerate(values, 1):
        if not isinstance(value, list):
            raise ValidationError(f"{file}: row {number}: label {_shown(value)} is no list, those of other rows are")
    flat = [each for value in values for each in value]
    if all(isinstance(each, str) for each in flat) and flat:
        return _of_names(file, values, list(label_names or ()))
    for number, value in enumerate(values, 1):
        if not all(_is_whole(each) for each in value):
            raise ValidationError(
                f"{file}: row {number}: label {_shown(value)} is neither a list of class names nor one of whole numbers"
            )
    width = len(values[0])
    are_rows = width > 0 and all(len(value) == width and set(value) <= {0, 1} for value in values)
    are_numbers = all(len(set(value)) == len(value) for value in values)
    if are_rows and are_numbers:
        raise ValidationError(
            f"{file}: labels such as {_shown(values[0])} may be rows of 0 and 1, or lists of class numbers",
            hint="names of classes in the lists say it; or a column of 0 and 1 for each class, label: [first, second]",
        )
    if are_rows:
        return LabelRows(values, _said("rows of 0 and 1", width, label_names))
    return _of_numbers(file, values, list(label_names or ()))


def of_table(file: Path, table: PictureTable, label_names: Sequence[str] | None, *, chosen: bool) -> LabelRows:
    """Read the rows of the table's pictures; `chosen` says that the recipe lists the columns."""
    # Values are checked in all rows, so that messages count them as the file does.
    read = of_columns(file, table.rows, table.columns, label_names, chosen=chosen)
    order = read.order.model_copy(update={"warning": table.warning})
    return LabelRows([read.rows[place] for place in table.row_of.values()], order)


def of_tensor(where: object, labels: Tensor) -> Tensor:
    """Return a tensor [N, K] of any dtype as uint8. Raises ValidationError for a value other than 0 and 1."""
    strange = (labels != 0) & (labels != 1)
    if bool(strange.any()):
        row, column = (int(place) for place in strange.nonzero()[0])
        raise ValidationError(
            f"{where}: labels[{row}, {column}] is {labels[row, column].item()}, neither 0 nor 1",
            hint="labels [N] are classes or numbers, labels [N, K] have a 0 or a 1 for each class",
        )
    return labels.to(torch.uint8)


def _in_order(
    file: Path, columns: Sequence[str], label_names: Sequence[str] | None, *, chosen: bool
) -> tuple[list[str], str]:
    """Return the columns in the order of the logits, and the source of this order."""
    if not columns:
        raise ValidationError(f"{file}: has no column of labels", hint="a column of 0 and 1 for each class")
    if label_names is None:
        return list(columns), "label: in the recipe" if chosen else f"the columns of {file.name}"
    found = match(columns, label_names)
    if len(columns) == len(label_names) == len(set(found.places.values())):
        return sorted(columns, key=found.places.__getitem__), "the network's class names"
    if chosen and not found.places and not found.ambiguous and len(columns) == len(label_names):
        return list(columns), "label: in the recipe"
    raise ValidationError(
        f"{file}: the columns of labels are {listed(columns)}; the network's classes are {listed(label_names)}",
        hint="label: [first, second] names the columns, one for each class of the network",
    )


def _of_names(file: Path, values: Sequence[Sequence[str]], names: Sequence[str]) -> LabelRows:
    distinct = sorted({name for value in values for name in value})
    if not names:
        raise ValidationError(
            f"{file}: labels are lists of the names {listed(distinct)}, and the network does not name its classes",
            hint="labels: [first, second, ...] in the recipe names all of them, in the order of the logits",
        )
    found = match(distinct, names)
    for number, value in enumerate(values, 1):
        for name in value:
            if name not in found.places:
                raise ValidationError(
                    f"{file}: row {number}: label {name!r} is none of {listed(names)}{suggestion(name, names)}",
                    hint="labels: [first, second, ...] in the recipe names all classes, in the order of the logits",
                )
    places = [[found.places[name] for name in value] for value in values]
    return LabelRows(_filled(places, len(names)), _said("names in lists", len(names), names))


def _of_numbers(file: Path, values: Sequence[Sequence[int]], names: Sequence[str]) -> LabelRows:
    if not names:
        raise ValidationError(
            f"{file}: labels are lists of class numbers, and nothing says how many classes there are",
            hint="labels: [first, second, ...] in the recipe names all of them, in the order of the logits",
        )
    for number, value in enumerate(values, 1):
        if len(set(value)) < len(value) or not all(0 <= each < len(names) for each in value):
            raise ValidationError(
                f"{file}: row {number}: label {_shown(list(value))} is neither a 0 or a 1 for each class, "
                f"nor a list of class numbers from 0 to {len(names) - 1}, each once"
            )
    return LabelRows(_filled(values, len(names)), _said("class numbers in lists", len(names), names))


def _said(by: str, count: int, names: Sequence[str] | None) -> ClassOrder:
    known = names if names is not None and len(names) == count else ()
    return ClassOrder(by=by, count=count, index={name: place for place, name in enumerate(known[:100])})


def _filled(places: Sequence[Sequence[int]], classes: int) -> list[list[int]]:
    rows = [[0] * classes for _ in places]
    for row, of_row in zip(rows, places, strict=True):
        for place in of_row:
            row[place] = 1
    return rows


def _bit(file: Path, number: int, column: str, value: Any) -> int:
    """Return the 0 or 1 in a cell. Raises ValidationError for anything else."""
    word = value.strip().lower() if isinstance(value, str) else value
    if word in (0, 1):  # True and 1.0 are equal to 1
        return int(word)
    if isinstance(word, str) and word in _BITS:
        return _BITS[word]
    raise ValidationError(
        f"{file}: row {number}: column {column!r} is {_shown(value)}, neither 0 nor 1",
        hint="label: [first, second] names the columns that are classes, label: [NAME] one that holds each picture's "
        "class; rows of unknown labels are left out of a file",
    )


_BITS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
