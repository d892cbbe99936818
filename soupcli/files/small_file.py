"""Bytes of small files, and the first bytes of any: never of a pipe or a device, and never more than asked for.

It imports little: each Python that a command starts imports it (see soupcli/user_code/notes.py).
"""

from __future__ import annotations

import errno
import filecmp
import os
import stat as modes
from collections.abc import Callable
from pathlib import Path

MOST_COMPARED = 1 << 28  # bytes: a file of a few that says it has a terabyte would be read for hours


def read_small(path: Path, *, most: int) -> bytes:
    """Return the bytes of a file of at most `most` bytes. Raises OSError for a larger one, a pipe and a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    try:
        found = os.fstat(descriptor)
        if not modes.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > most:  # not a byte of it is read
            raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            data = opened.read(most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))
    return data


def read_start(path: Path, count: int) -> bytes:
    """Return the first `count` bytes of a file, or fewer. Raises OSError for a pipe and a device."""
    return _read_at(path, count, lambda _size: 0)


def read_end(path: Path, count: int) -> bytes:
    """Return the last `count` bytes of a file, or fewer. Raises OSError for a pipe and a device."""
    return _read_at(path, count, lambda size: max(0, size - count))


def _read_at(path: Path, count: int, place: Callable[[int], int]) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    try:
        found = os.fstat(descriptor)
        if not modes.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.pread(descriptor, count, place(found.st_size))
    finally:
        os.close(descriptor)


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files are equal. Returns False if one of them cannot be read, or is larger than any side file."""
    try:
        sizes = {one.stat().st_size, other.stat().st_size}
        return len(sizes) == 1 and max(sizes) <= MOST_COMPARED and filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
