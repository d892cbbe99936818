"""Two folders change names in one step of the file system, so that at no moment neither stands there."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

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
