"""JSON as every file and output of this program has it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def dump_json(document: object) -> str:
    """Sorted, indented JSON with a final newline, as every JSON file and output of this program is written."""
    text = _dumped(document, ascii_alone=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path that is not UTF-8
        text = _dumped(document, ascii_alone=True)
    return text + "\n"


def _dumped(document: object, *, ascii_alone: bool) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=ascii_alone, allow_nan=False)


def key_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of the sorted JSON of `parts`."""
    return hashlib.sha256(dump_json(parts).encode()).hexdigest()
