"""Open a tar archive of a stranger's: its headers are read, and none of them may be large."""

from __future__ import annotations

import tarfile
from typing import BinaryIO

MAX_HEADER = 2**20


class _Headers:
    """A file as tarfile reads it, which takes the length of extended headers from the archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"an extended header of {size} bytes")
        return self._file.read(size)


def open_tar(file: BinaryIO) -> tarfile.TarFile:
    """Open an uncompressed archive. Raises tarfile.TarError, also later, for what is none."""
    return tarfile.open(fileobj=_Headers(file), mode="r:")  # type: ignore[call-overload, no-any-return]
