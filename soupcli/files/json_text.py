"""JSON in the form of every file and output of this program."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

MOST_VALUES = 1_000_000
MAX_REPORT = 1 << 25  # bytes of a report: one of a thousand ingredients has two megabytes


def dump_json(document: object) -> str:
    """Return sorted, indented JSON with a final newline, as in every JSON file and output of this program."""
    text = _dumped(document, ascii_alone=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path that is not UTF-8
        text = _dumped(document, ascii_alone=True)
    return text + "\n"


def plain(value: object) -> Any:
    """Return a dumped model as JSON holds it: paths as text, tuples as lists.

    Pydantic's own mode "json" replaces bytes that are no UTF-8 in keys, which name sets and files, but not in values.
    """
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return list(map(plain, value))
    return str(value) if isinstance(value, PurePath) else value


def _dumped(document: object, *, ascii_alone: bool) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=ascii_alone, allow_nan=False)


class TooManyValuesError(ValueError):
    """JSON of more values than a report or configuration has."""


def parse_json(content: bytes | str, *, most: int = MOST_VALUES, **options: Any) -> Any:
    """The JSON that a stranger wrote, of at most `most` values. `options` are those of json.loads.

    Raises TooManyValuesError before it makes objects of them, and ValueError for what is no JSON.
    """
    values = sum(map(content.count, ",{[")) if isinstance(content, str) else sum(map(content.count, (b",", b"{", b"[")))
    if values > most:
        raise TooManyValuesError(f"it holds {values:,} values, at most {most:,} are read")
    return json.loads(content, **options)


def finite(value: object) -> float | None:
    """Return a number from a file as a float, or None for anything else and for a number too large for a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the sorted JSON of `parts`, without indents, which json writes ten times as fast."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
