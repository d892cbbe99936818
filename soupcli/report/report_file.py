"""A report from its file. It may come from a stranger, so nothing in it is believed before it was checked."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from soupcli import __version__
from soupcli.errors import UsageError
from soupcli.files.json_text import MAX_REPORT, parse_json
from soupcli.files.own_file import SCHEMA
from soupcli.report.report import Report

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEEPEST = 40  # lists and objects within one another
LARGEST = 1e100  # of a number
FAMILY = re.compile(r"soup-report/\d+")
UPDATE = "pip install -U model-soup has the newest version"
HINT = "a soup's report is the soup.json in its folder"


def read_report(path: Path, *, ignore_unknown: bool = False) -> Report:
    """The report in `path`. Raises UsageError if it is not one.

    `ignore_unknown` leaves out keys that a later version has added.
    """
    document = _document(path)
    try:
        return Report.model_validate(document)  # pydantic's own reader knows no paths of other bytes than UTF-8
    except ValidationError as invalid:
        if ignore_unknown and (known := _without_unknown(document, invalid)) is not None:
            return known
        errors = [error for error in invalid.errors() if not ignore_unknown or error["type"] != "extra_forbidden"]
        _refuse_other_version(path, document, errors)
        first = errors[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{path}: not a report of a soup: {where + ': ' if where else ''}{first['msg']}", hint=HINT
        ) from invalid


def _refuse_other_version(path: Path, document: Any, errors: Sequence[ErrorDetails]) -> None:
    """Raises UsageError if all that is wrong with a report is that another version of soup wrote it."""
    keys = document if isinstance(document, dict) else {}
    schema, versions = keys.get("schema"), keys.get("versions")
    wrote = f"soup {versions['soup']}" if isinstance(versions, dict) and "soup" in versions else "another version"
    if isinstance(schema, str) and FAMILY.fullmatch(schema) and schema != SCHEMA:
        raise UsageError(f"{path}: is a {schema} of {wrote}, this soup reads {SCHEMA}", hint=UPDATE)
    if schema == SCHEMA and {error["type"] for error in errors} == {"extra_forbidden"}:
        key = ".".join(map(str, errors[0]["loc"]))
        raise UsageError(f"{path}: {key} is unknown to soup {__version__}; {wrote} wrote it", hint=UPDATE)


@contextmanager
def taken_from(paths: Iterable[Path]) -> Iterator[None]:
    """What is computed here depends on these reports alone: if it fails, their parts do not fit together.

    Raises UsageError then. SOUP_DEBUG=1 shows the cause.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as bad:
        if os.environ.get("SOUP_DEBUG") == "1":
            raise
        name = ", ".join(map(str, paths))
        raise UsageError(f"{name}: its parts do not fit together: {type(bad).__name__}: {bad}") from bad


def _document(path: Path) -> Any:
    """The JSON of the file, with usable numbers and texts."""
    try:
        text = _text(path)
    except (OSError, ValueError) as cause:
        raise UsageError(f"{path}: {getattr(cause, 'strerror', None) or cause}", hint=HINT) from cause
    try:
        document = parse_json(text, parse_constant=_refuse)
        problem = _problem(document)
    except (ValueError, RecursionError) as invalid:
        raise UsageError(f"{path}: not a report of a soup: not JSON: {invalid}", hint=HINT) from invalid
    if problem:
        raise UsageError(f"{path}: not a report of a soup: {problem}", hint=HINT)
    return document


def _text(path: Path) -> bytes:
    """The bytes of a regular file of a report's size. Raises ValueError for another one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise ValueError("Is a directory")
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_REPORT:
            raise ValueError(f"not a file of at most {MAX_REPORT} bytes")
        return file.read(MAX_REPORT)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _problem(document: Any) -> str:
    """What nothing can be made of: too deep, too large a number, bytes that are not text; "" if there is nothing."""
    level, depth = [document], 0
    while level:
        if depth > DEEPEST:
            return f"more than {DEEPEST} lists and objects within one another"
        parts: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                parts += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                parts += value
            elif problem := _problem_of(value):
                return problem
        level, depth = parts, depth + 1
    return ""


def _problem_of(value: Any) -> str:
    if isinstance(value, int | float) and not -LARGEST <= value <= LARGEST:
        return f"a number beyond {LARGEST:g}"
    if isinstance(value, str):
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return f"{value[:40]!r} is no text"
    return ""


def _without_unknown(document: Any, invalid: ValidationError) -> Report | None:
    """The report without the keys that `invalid` calls unknown, None if that is not all that is wrong with it."""
    if {error["type"] for error in invalid.errors()} != {"extra_forbidden"}:
        return None
    for error in invalid.errors():
        *parents, key = error["loc"]
        part = document
        for name in parents:
            part = part[name]
        del part[key]
    return Report.model_validate(document)
