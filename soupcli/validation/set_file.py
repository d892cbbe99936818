"""The file that a validation set is kept in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from soupcli.checkpoints.files import FileVersion, sha256
from soupcli.errors import CheckpointError, ValidationError


def content_hash(path: Path) -> str:
    """SHA-256 of its content. Raises ValidationError where it cannot be read."""
    if not path.is_file():
        raise ValidationError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    try:
        return sha256(FileVersion.of(path))
    except CheckpointError as cause:
        raise ValidationError(str(cause), hint=cause.hint) from cause


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without the empty ones at its end. Raises ValidationError where one is empty."""
    try:
        lines = path.read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise ValidationError(f"{path}: {reason}") from cause
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValidationError(f"{path}:{number}: an empty line")
    if not lines:
        raise ValidationError(f"{path}: has no lines")
    return [line.strip() for line in lines]


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValidationError where it is none."""
    try:
        return json.loads(path.read_bytes())
    except OSError as cause:
        raise ValidationError(f"{path}: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise ValidationError(f"{path}: not JSON: {cause}") from cause
