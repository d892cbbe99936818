"""Names of classes in the order of a head's rows, as files and the entries of checkpoints state them.

named_rows({"meta": {"classes": ("cat", "dog")}})       # {"meta.classes": ["cat", "dog"]}
rows_of_text("0: cat\\n1: dog\\n")                        # ["cat", "dog"]
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

DEEPEST = 3  # levels that are searched
MOST = 100_000  # classes, and entries that are searched
_NUMBER, _NAME = "(ids?|idx|ind(ex|ices))", "(label|class|name|tag)(es|s)?"
_MAPS = rf"{_NUMBER}_?(2|to)_?{_NAME}|{_NAME}_?(2|to)_?{_NUMBER}"
_NAMES = r"(label|class|target|category)_?names|labels|classes|names"
_LISTS = (
    rf"{_MAPS}|(target_?)?names|categor(y|ies)|synsets?"
    r"|(label|class|category)(es|s)?([_-]?(names|map|mapping|list|dict|index|indices|encoder))?"
)
KEYS = re.compile(rf"{_MAPS}|{_NAMES}", re.IGNORECASE)
LISTS = re.compile(_LISTS, re.IGNORECASE)
PLACEHOLDER = re.compile(r"(LABEL_|class_?)?\d+", re.IGNORECASE)  # of classes that nobody has named
# Lines of a list with numbers: `0 cat`, `1: dog`, `0,cat`; `cat 0`.
_NUMBER_FIRST = re.compile(r"(\d{1,9})[\s:,;=]+(.+)")
_NUMBER_LAST = re.compile(r"(.+?)[\s:,;=]+(\d{1,9})")

View = Callable[[Any], "Mapping[Any, Any] | None"]


def named_rows(document: Any, view_of: View | None = None) -> dict[str, list[str]]:
    """Return the names of classes in a document, by the dotted key that states them.

    `view_of` returns the entries of a nested value, or None.
    """
    view_of = view_of or _mapping
    found: dict[str, list[str]] = {}
    waiting, seen = deque([("", 1, view_of(document))]), 0
    while waiting and seen < MOST:
        prefix, depth, view = waiting.popleft()
        seen += len(view or ())
        for key, value in (view or {}).items():
            below = view_of(value)
            names = names_by_row(value if below is None else below) if KEYS.fullmatch(str(key)) else None
            if names is not None:
                found[f"{prefix}{key}"] = names
            elif below and depth < DEEPEST:
                waiting.append((f"{prefix}{key}.", depth + 1, below))
    return found


def names_by_row(value: Any) -> list[str] | None:
    """Return names in order, from a list or from a map between numbers and names; None for anything else."""
    if not isinstance(value, Mapping | list | tuple) or not 1 < len(value) <= MOST:
        return None
    if isinstance(value, Mapping):
        pairs = [(number, name) for number, name in value.items() if _row(number) is not None]
        if len(pairs) < len(value) or not all(isinstance(name, str) for _, name in pairs):
            pairs = [(number, name) for name, number in value.items()]
        rows = {_row(number): name for number, name in pairs}
        if rows.keys() != set(range(len(value))):
            return None
        value = [rows[row] for row in range(len(rows))]
    elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):  # COCO's categories
        if any(_row(entry.get("id", row)) != row for row, entry in enumerate(value)):
            return None
        value = [entry.get("name") for entry in value]
    return list(value) if all(isinstance(name, str) for name in value) else None


def rows_of_text(text: str) -> list[str] | None:
    """Return the names of a list with one class a line, or all in one line, with or without numbers."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) == 1:
        lines = [name.strip() for name in lines[0].split(",")]
    for form, number, name in ((_NUMBER_FIRST, 1, 2), (_NUMBER_LAST, 2, 1)):
        for numbered in (lines, lines[1:]):  # a table has a header
            found = [form.fullmatch(line) for line in numbered]
            pairs = {int(match[number]): match[name].strip() for match in found if match is not None}
            if found and pairs.keys() == set(range(len(found))) and len(set(pairs.values())) == len(found):
                return names_by_row(pairs)
    return names_by_row(lines)


def is_class_list(name: str) -> bool:
    """Whether a file of this name lists the classes of the network that it lies beside."""
    stem, _, ending = name.rpartition(".")
    return ending == "names" or LISTS.fullmatch(stem) is not None


def plain_name(name: str) -> str:
    """Return a name without case and separators."""
    return re.sub(r"[\W_]+", "", name).casefold() or name


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    return value if isinstance(value, Mapping) else None


def _row(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    return value if type(value) is int else None
