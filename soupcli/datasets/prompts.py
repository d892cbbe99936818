"""Reads `classnames:` and `templates:`, from which a zero-shot CLIP classifier is built."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

from soupcli.datasets.saved_datasets import refuse_saved
from soupcli.errors import ValidationError
from soupcli.files.json_text import parse_json
from soupcli.files.manifest import Manifest

MAX_SMALL = 50_000_000  # bytes of a file of names, labels or templates


def check_is_file(path: Path) -> None:
    """Raises ValidationError for anything but a regular file."""
    refuse_saved(path)
    if path.is_dir():
        raise ValidationError(f"{path}: is a folder, not a file", hint="name a file in it")
    if not path.is_file():
        raise ValidationError(
            f"{path}: no such file", hint="paths in a recipe are relative to it, those of flags to the working folder"
        )


def content_hash(path: Path, manifest: Manifest | None = None) -> str:
    """Return the SHA-256 of a file's content from `manifest`. Raises ValidationError if it cannot be read."""
    check_is_file(path)
    try:
        return (manifest or Manifest()).file(path)
    except OSError as cause:
        raise ValidationError(f"{path}: {cause.strerror}") from cause


def read_small(path: Path) -> bytes:
    """Return the content of a file beside a set. Raises ValidationError for a pipe, a device or a very large file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    except OSError as cause:
        raise ValidationError(f"{path}: {cause.strerror}") from cause
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValidationError(f"{path}: {'is a folder' if path.is_dir() else 'a pipe or a device'}, not a file")
        if found.st_size > MAX_SMALL:
            raise ValidationError(f"{path}: {found.st_size} bytes, such a file has at most {MAX_SMALL}")
        try:
            return opened.read()
        except OSError as cause:
            raise ValidationError(f"{path}: {cause.strerror}") from cause


def small_content_hash(path: Path, manifest: Manifest | None = None) -> str:
    """Do what `content_hash` does, without reading a very large file."""
    if path.is_file() and path.stat().st_size > MAX_SMALL:
        raise ValidationError(f"{path}: {path.stat().st_size} bytes, such a file has at most {MAX_SMALL}")
    return content_hash(path, manifest)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without empty ones at its end. Raises ValidationError if another is empty."""
    try:
        lines = read_small(path).decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as cause:
        raise ValidationError(f"{path}: {cause}") from cause
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValidationError(f"{path}:{number}: an empty line", hint="one name a line: remove it")
    if not lines:
        raise ValidationError(f"{path}: has no lines")
    return [line.strip() for line in lines]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises ValidationError if it is not JSON."""
    try:
        return parse_json(read_small(path))
    except (ValueError, RecursionError) as cause:
        raise ValidationError(f"{path}: not JSON: {cause}") from cause


TEMPLATES = ("a photo of a {}.",)  # the first of CLIP's own, for sets that name none


class Prompts(NamedTuple):
    """Names of all classes, in the order of the logits, and the templates for them."""

    classnames: tuple[str, ...]
    templates: tuple[str, ...]


def read(classnames: Path, templates: Path | None) -> Prompts:
    """Read the lines of both files. Raises ValidationError for a template without a place for the name."""
    return Prompts(tuple(read_lines(classnames)), _templates(templates) if templates is not None else TEMPLATES)


def _templates(file: Path) -> tuple[str, ...]:
    lines = read_lines(file)
    for number, line in enumerate(lines, 1):
        try:
            filled = line.format("name")
        except (LookupError, ValueError) as cause:
            raise ValidationError(f"{file}:{number}: not a template: {cause}") from cause
        if filled == line:
            raise ValidationError(
                f"{file}:{number}: has no {{}} where the class name goes", hint="e.g. a photo of a {}."
            )
    return tuple(lines)
