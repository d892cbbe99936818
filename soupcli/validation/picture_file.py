"""One encoded picture of a set, wherever its bytes lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class PictureFile(NamedTuple):
    """A file of its own, or `nbytes` bytes of a larger one from `offset`."""

    path: Path
    member: str = ""  # its name inside of a shard
    offset: int = 0
    nbytes: int = 0

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """The last part of its name."""
        return (self.member or self.path.name).rpartition("/")[2]

    def read(self) -> bytes:
        """The encoded picture, by one positioned read. Raises OSError."""
        if not self.member:
            return self.path.read_bytes()
        shard = os.open(self.path, os.O_RDONLY)
        try:
            return read_exactly(shard, self.nbytes, self.offset)
        finally:
            os.close(shard)


def read_exactly(file: int, nbytes: int, offset: int) -> bytes:
    """`nbytes` bytes of an open file from `offset`. Raises OSError where it ends before."""
    parts = []
    while nbytes:
        part = os.pread(file, nbytes, offset)
        if not part:
            raise OSError(f"ends {nbytes} bytes early")
        parts.append(part)
        nbytes, offset = nbytes - len(part), offset + len(part)
    return b"".join(parts)
