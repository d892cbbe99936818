"""Files that appear whole or not at all: written aside, flushed to disk, renamed."""

from __future__ import annotations

import os
from pathlib import Path

from soupcli.errors import OutputError
from soupcli.leftovers import aside, remove_abandoned, unfinished


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes `content` beside `path`, flushes it to disk and renames it there: whole or not at all.

    What a killed process left of the same file is removed. Raises OutputError where it cannot be written.
    """
    data = content if isinstance(content, bytes) else content.encode()
    remove_abandoned(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(aside(path)) as place:
            with place.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            place.replace(path)
    except OSError as cause:
        raise OutputError(f"{path}: {cause.strerror}: {len(data)} bytes are needed") from cause


def flush(path: Path) -> None:
    """Waits until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_file(path: Path) -> None:
    """Raises OutputError where no file can take the name `path`, before the work whose result goes there."""
    if path.is_dir():
        raise OutputError(f"{path}: is a folder, a file was expected")
    parent = next(parent for parent in path.parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"{path}: nothing can be written in {parent}")
