"""Which files a command may replace without --force: only its own kind, recognised by content.

    check_target(Path("rank.json"), "report")              # raises OutputError for anything but a report of ours

A checkpoint, a recipe, a set or a file of another program is never replaced, whatever its name and however it is
spelled.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from soupcli.errors import OutputError
from soupcli.files.atomic import check_file
from soupcli.files.json_text import MAX_REPORT, parse_json
from soupcli.files.small_file import read_small, read_start

GENERATOR = "soup (model soups)"  # how pages and pictures name what made them
# How they begin. A file of the user's may name soup too, but further down.
PAGE_START = f'''<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="{GENERATOR}">
'''
MARKDOWN_START = f"<!-- {GENERATOR} -->\n"
SVG_START = f'<?xml version="1.0" encoding="utf-8"?>\n<!-- {GENERATOR} -->\n'
PNG_START, PNG_SOFTWARE = b"\x89PNG\r\n\x1a\n", f"Software\0{GENERATOR}".encode()
HEAD = 4096  # bytes in which a picture's software and the schema of logits stand
SCHEMA = "soup-report/1"
WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
LOGITS_START = b'{"__metadata__":{"soup":"{'  # of a file that was cut short, too
AS_WRITTEN = "# as soup init wrote it: "

Kind = Literal["report", "page", "picture", "recipe", "logits"]


class _Own(NamedTuple):
    """How files of a kind are recognised, and their name in messages."""

    article: str
    is_own: Callable[[Path], bool]


def check_target(path: Path, kind: Kind) -> None:
    """Raise OutputError if no file of this kind can take the name `path`, or if a file of another kind has it."""
    check_file(path)
    place = Path(os.path.realpath(path))  # `new/../soup.yaml` leads there as soon as `new` is made
    if not place.exists():
        return
    own = KINDS[kind]
    try:
        found = place.stat()
        replaceable = found.st_size == 0 or own.is_own(place)
    except OSError as cause:
        raise OutputError(f"{path}: {cause.strerror}") from cause
    if not found.st_mode & WRITABLE:
        raise OutputError(f"{path}: exists, and nobody may write to it", hint=f"give another name, or chmod u+w {path}")
    if not replaceable:
        raise OutputError(
            f"{path}: exists and is not {own.article}: nothing else is replaced", hint="give another name, or move it"
        )


def _is_report(path: Path) -> bool:
    """Whether the file is a report of a command that writes no soup. A soup's report belongs to its folder."""
    report = _json(path)
    return isinstance(report, dict) and report.get("schema") == SCHEMA and report.get("soup") is None


def _json(path: Path) -> Any:
    try:
        return parse_json(read_small(path, most=MAX_REPORT))
    except (OSError, ValueError, RecursionError):
        return None


def _is_page(path: Path) -> bool:
    return read_start(path, HEAD).startswith((PAGE_START.encode(), MARKDOWN_START.encode()))


def _is_picture(path: Path) -> bool:
    head = read_start(path, HEAD)
    return head.startswith(SVG_START.encode()) or (head.startswith(PNG_START) and PNG_SOFTWARE in head)


def _holds_logits(path: Path) -> bool:
    head = read_start(path, HEAD)
    return b"soup-logits/" in head or head[8:].startswith(LOGITS_START)


def _is_untouched_recipe(path: Path) -> bool:
    text = read_start(path, 1_000_000)
    body, _, _ = text.rpartition(AS_WRITTEN.encode())
    return bool(body) and signed(body) == text


def signed(text: bytes) -> bytes:
    """Return the text with a last line that identifies it as long as nobody changes it."""
    return text + f"{AS_WRITTEN}{hashlib.sha256(text).hexdigest()[:16]}\n".encode()


KINDS: dict[Kind, _Own] = {
    "report": _Own("a report of soup that may be replaced", _is_report),
    "page": _Own("a page of soup report", _is_page),
    "picture": _Own("a picture of soup plot", _is_picture),
    "logits": _Own("logits that soup kept", _holds_logits),
    "recipe": _Own("as soup init wrote it", _is_untouched_recipe),
}
