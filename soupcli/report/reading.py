"""A report from its file."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from soupcli.errors import UsageError
from soupcli.report.report import Report


def read_report(path: Path, *, ignore_unknown: bool = False) -> Report:
    """The report in `path`. Raises UsageError where that is not one.

    `ignore_unknown`: keys that a later version has added are left out.
    """
    try:
        text = path.read_bytes()
    except OSError as cause:
        raise UsageError(f"{path}: {cause.strerror}", hint="a soup's report is the soup.json in its folder") from cause
    try:
        return Report.model_validate(json.loads(text))  # pydantic's own reader knows no paths of other bytes than UTF-8
    except (ValueError, RecursionError) as invalid:
        if not isinstance(invalid, ValidationError):
            raise UsageError(f"{path}: not a report of a soup: not JSON: {invalid}") from invalid
        if ignore_unknown and (known := _without_unknown(text, invalid)) is not None:
            return known
        errors = [error for error in invalid.errors() if not ignore_unknown or error["type"] != "extra_forbidden"]
        first = errors[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: not a report of a soup: {where + ': ' if where else ''}{first['msg']}") from invalid


def _without_unknown(text: bytes, invalid: ValidationError) -> Report | None:
    """The report without the keys that `invalid` calls unknown, None where that is not all that is wrong with it."""
    if {error["type"] for error in invalid.errors()} != {"extra_forbidden"}:
        return None
    document = json.loads(text)
    for error in invalid.errors():
        *parents, key = error["loc"]
        part = document
        for name in parents:
            part = part[name]
        del part[key]
    return Report.model_validate(document)
