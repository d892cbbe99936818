"""Labels of a text set: all class names, all class numbers, or measurements for metrics of numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.datasets.class_names import listed, match
from soupcli.errors import ValidationError
from soupcli.late import torch
from soupcli.report.scores import ClassOrder
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.recipe.sets import TextSet

MOST = 2**31  # classes; a label is the index of a logit
_NUMBER = re.compile(r"[-+]?\d{1,300}(\.\d{0,300})?", re.ASCII)
_DIGITS = re.compile(r"[-+]?\d+(\.0*)?", re.ASCII)


class ClassLabels(NamedTuple):
    """The class of each row, and the source of the order of classes."""

    numbers: Sequence[int]
    order: ClassOrder

    @property
    def labels(self) -> Tensor:
        """The classes as int64 [N]."""
        return torch.tensor(self.numbers)


def measurements(spec: TextSet, values: Sequence[Any]) -> Tensor:
    """Return labels as float64 [N]. Raises ValidationError for a label that is not a finite number."""
    return torch.tensor([_number(spec, value, row) for row, value in enumerate(values, 1)], dtype=torch.float64)


def class_labels(
    spec: TextSet, values: Sequence[Any], label_names: Sequence[str] | None, own_names: Sequence[str] | None = None
) -> ClassLabels:
    """Return the classes of all rows: by name if the labels are known names, by number if all are numbers.

    Values that are true or false are names, a JSON number is never one. `own_names` are those that the file gives to
    its numbers. Raises ValidationError if some are names and some numbers, if one is neither, and if text can be read
    both ways.
    """
    names = list(spec.labels or label_names or ())
    if own_names and names and all(_is_whole(value) for value in values):
        values = [_named(spec, value, row, own_names) for row, value in enumerate(values, 1)]
    if values and all(isinstance(value, bool) for value in values):
        return _truths(spec, values, names)
    texts = [row for row, value in enumerate(values, 1) if isinstance(value, str)]
    if len(texts) == len(values) and names and not _are_numbers(spec, values, names):
        return _by_name(spec, values, names)
    if texts and len(texts) < len(values):
        _refuse_mixture(spec, values, texts[0], names)
    numbers = [_class(spec, value, row, names) for row, value in enumerate(values, 1)]
    order = ClassOrder(by="numbers in the label column", count=len(set(numbers)), index={})
    return ClassLabels(numbers, order)


def _truths(spec: TextSet, values: Sequence[bool], names: Sequence[str]) -> ClassLabels:
    """Return the classes of `true` and `false`, which are names of classes, never 1 and 0."""
    texts = [str(value).lower() for value in values]
    if match(set(texts), names).unknown:
        shown = f"are {listed(names)}" if names else "have no names"
        raise ValidationError(
            f"{spec.text}: row 1: label {texts[0]} is true or false, and the classes {shown}",
            hint="name the classes in the order of the logits: labels: ['false', 'true']",
        )
    return _by_name(spec, texts, names)


def _refuse_mixture(spec: TextSet, values: Sequence[Any], text: int, names: Sequence[str]) -> None:
    """Raises ValidationError if the label of row `text` is text and others are numbers."""
    number = next(row for row, value in enumerate(values, 1) if not isinstance(value, str))
    if not match([values[text - 1]], names).places:
        _class(spec, values[text - 1], text, names)
    _class(spec, values[number - 1], number, names)
    raise ValidationError(
        f"{spec.text}: row {text}: label {_shortened(values[text - 1])} is text, row {number}: "
        f"{_shortened(values[number - 1])} is a number",
        hint="labels are all names, or all numbers",
    )


def _are_numbers(spec: TextSet, values: Sequence[str], names: Sequence[str]) -> bool:
    """Whether texts such as '2' are indices. Raises ValidationError if they may as well be names, of other classes."""
    distinct = sorted(set(values))
    found = match(distinct, names)
    if not found.places and not found.ambiguous:
        return True
    if spec.labels is not None or not all(_DIGITS.fullmatch(text) for text in distinct):
        return False
    if found.unknown or found.ambiguous:
        return True
    same = all(found.places[text] == _whole(text) for text in distinct)
    in_range = all(0 <= _whole(text) < len(names) for text in distinct)
    if not same and in_range:
        raise ValidationError(
            f"{spec.text}: labels {listed(distinct)} may be class numbers, or names of the classes {listed(names)}",
            hint=f"labels: {list(names)[:6]} in the recipe takes them as names; in .jsonl, numbers without quotation "
            "marks are class numbers",
        )
    return False


def _by_name(spec: TextSet, values: Sequence[str], names: Sequence[str]) -> ClassLabels:
    distinct = list(dict.fromkeys(values))
    found = match(distinct, names)
    for text in (*found.ambiguous, *found.unknown):
        where = f"{spec.text}: row {values.index(text) + 1}: label {text!r}"
        several = text in found.ambiguous
        fits, near = ("fits several of", "") if several else ("is neither a number nor one of", suggestion(text, names))
        raise ValidationError(
            f"{where} {fits} {listed(names)}{near}; the set's labels are {listed(sorted(distinct))}",
            hint="name the classes in the order of the logits: labels: [negative, positive]",
        )
    index = {name: place for place, name in enumerate(names[:100])}
    by = "labels: in the recipe" if spec.labels is not None else "the network's class names"
    order = ClassOrder(by=by, count=len(names), index=index)
    return ClassLabels([found.places[value] for value in values], order)


def _named(spec: TextSet, value: Any, row: int, own_names: Sequence[str]) -> str:
    if not 0 <= int(value) < len(own_names):
        raise ValidationError(
            f"{spec.text}: row {row}: label {value!r}, the file names {len(own_names)} classes: {listed(own_names)}"
        )
    return own_names[int(value)]


def _class(spec: TextSet, value: Any, row: int, names: Sequence[str]) -> int:
    """Return the class of a number: 2.0 is 2, 2.5 is no class."""
    where = f"{spec.text}: row {row}: label {_shortened(value)}"
    number: int | float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and _NUMBER.fullmatch(value):
        number = _whole(value) if _DIGITS.fullmatch(value) else float(value)
    if number is None:
        raise ValidationError(
            f"{where} is neither a number nor one of {listed(names) or 'no names'}{suggestion(str(value)[:80], names)}",
            hint="name the classes in the order of the logits: labels: [negative, positive]",
        )
    if isinstance(number, float) and (not math.isfinite(number) or number % 1):
        raise ValidationError(
            f"{where} is a measurement, not a class",
            hint="metrics of classes need whole numbers or names as labels; --metric pearson, spearman or mse: numbers",
        )
    if abs(number) >= MOST:
        raise ValidationError(f"{where} is no class: the largest is {MOST - 1}", hint="a label is the index of a logit")
    return int(number)


def _number(spec: TextSet, value: Any, row: int) -> float:
    try:
        measured = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        measured = math.nan
    if not math.isfinite(measured):
        raise ValidationError(
            f"{spec.text}: row {row}: label {_shortened(value)} is not a number",
            hint="--metric accuracy is one of classes",
        )
    return measured


def _whole(text: str) -> int:
    """Return the whole number in a text such as `2` or `2.0`, or MOST if it is larger than any class."""
    digits = text.partition(".")[0]
    return int(digits) if len(digits) < 20 else MOST


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shortened(value: Any) -> str:
    """Return the value for a message, with only the first digits of a very long number."""
    if isinstance(value, int) and abs(value) >= 10**60:
        return f"of {value.bit_length() * 30103 // 100000} digits"
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:60]}..."
