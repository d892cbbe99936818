"""Files that appear whole or not at all: written aside, flushed to disk, renamed."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from soupcli.errors import OutputError
from soupcli.files.unfinished import aside, remove_abandoned, unfinished


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


AT_FDCWD = -100
RENAME_EXCHANGE = 2  # linux/fs.h
RENAME_SWAP = 2  # sys/stdio.h of macOS


def exchange(one: Path, other: Path) -> None:
    """Exchanges the names of two paths: renameat2 on Linux, renamex_np on macOS, three renames elsewhere.

    Raises OSError where the file system refuses.
    """
    if not _exchange_at_once(os.fsencode(one), os.fsencode(other)):
        aside = other.with_name(f".{other.name}.{os.getpid()}.old")
        other.rename(aside)
        one.rename(other)
        aside.rename(one)


def _exchange_at_once(one: bytes, other: bytes) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform.startswith("linux") and hasattr(libc, "renameat2"):
        return bool(libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0)
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        return bool(libc.renamex_np(one, other, RENAME_SWAP) == 0)
    return False
