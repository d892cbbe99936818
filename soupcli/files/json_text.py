"""JSON in the form of every file and output of this program."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def dump_json(document: object) -> str:
    """Return sorted, indented JSON with a final newline, as in every JSON file and output of this program."""
    text = _dumped(document, ascii_alone=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path that is not UTF-8
        text = _dumped(document, ascii_alone=True)
    return text + "\n"


def _dumped(document: object, *, ascii_alone: bool) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=ascii_alone, allow_nan=False)


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
    """Return the SHA-256 of the sorted JSON of `parts`."""
    return hashlib.sha256(dump_json(parts).encode()).hexdigest()
