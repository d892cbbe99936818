"""One list of names in the order of its numbers, whatever form it has: a list, a map, a table, pairs.

names_by_row({"1": "dog", "0": "cat"})                  # ["cat", "dog"]
names_by_row([("dog", 1), ("cat", 0)])                  # ["cat", "dog"]
names_in_text("cat|dog")                                # ["cat", "dog"]
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from soupcli.checkpoints.formats.class_words import OBJECT_NAME, OBJECT_NUMBER

MOST = 100_000  # names of one list
FEW = 4  # settings that may count from 0 by chance, such as a fold and a seed
MOST_CHARACTERS = 4_000_000  # of all names of a list
MOST_COLUMNS = 20  # of a table
LONGEST_LITERAL = 1 << 18  # characters
WNID = re.compile(r"(n\d{8})\b.*")  # `n01440764 tench, Tinca tinca`: the name in front counts
MARKS = ("\n", "|", ";", ",")  # between names in one text
VALUE = re.compile("value|code")  # of objects: a name or a number
OF_WORDS = "model_info.labels"  # of OpenVINO, with spaces between them


def names_in_order(value: Any, *, least: int = FEW) -> list[str] | None:
    """Return different names in order, from a list or a map that counts them from 0 or 1; None for anything else.

    A map from names to numbers has at `least` so many.
    """
    value = _as_map(value)
    if isinstance(value, Mapping):
        first = next(iter(value.items()), ())
        if not 1 < len(value) <= MOST or all(_row(one) is None for one in first):
            return None
        numbers, others = ([_row(one) for one in side] for side in (value.keys(), value.values()))
        by, texts = (numbers, value.values()) if None not in numbers else (others, value.keys())
        known = [number for number in by if number is not None]
        counted = set(known) in (set(range(len(value))), set(range(1, len(value) + 1)))
        if not counted or (by is others and len(value) < least):
            return None  # numbers of something else, such as a seed and a number of epochs
        value = [text for _, text in sorted(zip(known, texts, strict=True), key=lambda pair: pair[0])]
    names = names_by_row(value) if isinstance(value, list | tuple) else None
    return names if names is not None and len(set(names)) == len(names) else None


def names_by_row(value: Any) -> list[str] | None:
    """Return names in order, from a list or from a map between numbers and names; None for anything else."""
    value = _as_map(value)
    if not isinstance(value, Mapping | list | tuple) or not 1 < len(value) <= MOST:
        return None
    is_map = isinstance(value, Mapping)
    if isinstance(value, Mapping):
        pairs = [(number, name) for number, name in value.items() if _row(number) is not None]
        if len(pairs) < len(value) or not all(isinstance(name, str | list) for _, name in pairs):
            pairs = [(number, name) for name, number in value.items()]
        rows = {_row(number): name for number, name in pairs}
        if rows.keys() != set(range(len(value))):
            return None
        value = [rows[row] for row in range(len(rows))]
    elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):  # COCO's categories
        value = _of_objects(value)
    names = [name[0] if (is_map and isinstance(name, list) and name) or _is_of_keras(name) else name for name in value]
    are_names = all(isinstance(name, str) for name in names) and sum(map(len, names)) <= MOST_CHARACTERS
    return names if are_names else None


def names_in_text(place: str, text: str) -> list[str] | None:
    """Return the names that a text joins, at the place of a list of classes, or None if it is one name."""
    text = text.strip()
    literal = of_literal(text)
    if literal is not None:
        return literal
    mark = next((mark for mark in MARKS if mark in text), None)
    if mark is not None:
        names = [name.strip() for name in text.removesuffix(mark).split(mark)]
        return names if all(names) else None
    words = text.split() if place.endswith(OF_WORDS) else []
    return words if len(words) > 1 else None


def of_literal(text: str) -> list[str] | None:
    """Return the names in a list or map as Python prints it: `{0: 'tench, Tinca tinca', 1: 'goldfish'}`."""
    if text[:1] + text[-1:] not in ("{}", "[]", "()") or len(text) > LONGEST_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown escapes
            return names_in_order(ast.literal_eval(text))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _as_map(value: Any) -> Any:
    """Return pairs of names and numbers, a table and numbered objects as a map, a list in a list as the inner one."""
    if isinstance(value, list | tuple):
        if len(value) == 1 and isinstance(value[0], list | tuple):  # of scikit-learn's OneHotEncoder
            return value[0]
        if (
            value and len(value) <= MOST and all(isinstance(one, Mapping) and len(one) == 1 for one in value)
        ):  # of a YAML list
            return _of_pairs([next(iter(one.items())) for one in value]) or value
        return _of_pairs(value) or value
    if not isinstance(value, Mapping) or not value:
        return value
    if len(value) <= MOST and (_are_none(value.values()) or _are_wnids(value)):
        return list(value)
    return _of_columns(value) or _of_numbered_objects(value) or _of_numbers(value) or value


def _are_none(values: Iterable[Any]) -> bool:
    """Whether a map has keys alone, as that of dict.fromkeys."""
    return not any(value is not None for value in values)


def _are_wnids(value: Mapping[Any, Any]) -> bool:
    """Whether keys are ImageNet's numbers of synsets in their order, before the names."""
    return all(isinstance(key, str) and WNID.fullmatch(key) and isinstance(name, str) for key, name in value.items())


def _of_pairs(value: Sequence[Any]) -> dict[Any, Any] | None:
    """Return pairs of a name and its number, or the other way round, as a map."""
    pairs = value if value and isinstance(value[0], list | tuple) and len(value) <= MOST else ()
    if not pairs or not all(isinstance(one, list | tuple) and len(one) == 2 for one in pairs):
        return None
    for number in (0, 1):
        if all(_row(pair[number]) is not None and isinstance(pair[1 - number], str) for pair in pairs):
            found = {_row(pair[number]): pair[1 - number] for pair in pairs}
            return found if len(found) == len(pairs) else None
    return None


def _of_columns(value: Mapping[Any, Any]) -> dict[Any, str] | None:
    """Return the names of a table by their numbers: `{"id": [1, 0], "name": ["dog", "cat"]}`."""
    if len(value) > MOST_COLUMNS:
        return None
    found = (
        (_column(each) for key, each in value.items() if _is(words, key)) for words in (OBJECT_NAME, OBJECT_NUMBER)
    )
    names, numbers = (next(filter(None, columns), []) for columns in found)
    if not 1 < len(names) == len(numbers) or not all(isinstance(name, str) for name in names):
        return None
    rows = {row: name for number, name in zip(numbers, names, strict=True) if (row := _row(number)) is not None}
    return rows if len(rows) == len(names) else None


def _column(value: Any) -> Sequence[Any]:
    """Return the items of a list, or of a map that counts them as pandas does; () of anything else."""
    if isinstance(value, Mapping):
        counted = len(value) <= MOST and [*value] == [str(row) for row in range(len(value))]
        return list(value.values()) if counted else ()
    return value if isinstance(value, list | tuple) else ()


def _of_numbered_objects(value: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Return the number of each object by its name: `{"cat": {"id": 0, "color": "red"}}`."""
    first = next(iter(value.values()))
    number = next((key for key in first if _is(OBJECT_NUMBER, key)), None) if isinstance(first, Mapping) else None
    if number is None or any(_is(OBJECT_NAME, key) for key in first) or len(value) > MOST:
        return None
    found = {name: each.get(number) for name, each in value.items() if isinstance(each, Mapping)}
    return found if len(found) == len(value) and all(isinstance(name, str) for name in found) else None


def _of_numbers(value: Mapping[Any, Any]) -> dict[Any, str] | None:
    """Return numbers of a data set by those of rows, which follow each other: COCO's, from `{1: 0, 3: 1}`."""
    if len(value) > MOST or not all(type(one) is int for pair in value.items() for one in pair):
        return None
    rows = {row: str(number) for number, row in value.items()}
    return rows if rows.keys() == set(range(len(value))) and [*rows] != [*value] else None


def _is(words: re.Pattern[str], key: Any) -> bool:
    return isinstance(key, str) and words.fullmatch(key) is not None


def _of_objects(entries: Sequence[Mapping[Any, Any]]) -> list[Any]:
    """Return the names in objects, in the order of their numbers if they have any; [None] of other numbers."""
    first = [(key, _row(value) is not None) for key, value in entries[0].items() if isinstance(key, str)]
    name, number = (
        next(
            (key for each in (words, VALUE) for key, is_row in first if is_row == wanted and each.fullmatch(key)), None
        )
        for words, wanted in ((OBJECT_NAME, False), (OBJECT_NUMBER, True))
    )
    names = [entry.get(name) for entry in entries]
    rows = [_row(entry.get(number, row)) for row, entry in enumerate(entries)]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows) or len({*known}) < len(rows):
        return [None]
    if known == sorted(known):  # with gaps too, as COCO's
        return names
    counted = {*known} in (set(range(len(known))), set(range(1, len(known) + 1)))
    return [names[at] for at in sorted(range(len(known)), key=known.__getitem__)] if counted else [None]


def _is_of_keras(name: Any) -> bool:
    """Whether it is a class of Keras's list of ImageNet: `["n01440764", "tench"]`."""
    return isinstance(name, list) and len(name) == 2 and isinstance(name[0], str) and bool(WNID.fullmatch(name[0]))


def _row(value: Any) -> int | None:
    """Return the number that a value is, or the place of the only 1 among zeros; None for anything else."""
    if isinstance(value, str):
        return int(value) if len(value) < 10 and value.isascii() and value.isdigit() else None
    if isinstance(value, list | tuple):
        return _row(value[0]) if len(value) == 1 else _place_of_one(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _place_of_one(value: Sequence[Any]) -> int | None:
    is_one_hot = value.count(1) == 1 and value.count(0) == len(value) - 1
    return value.index(1) if is_one_hot else None
