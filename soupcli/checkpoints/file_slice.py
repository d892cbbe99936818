"""A part of a file that reads like a file of its own, for parsers that want one: zip archives, torch's loader."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from soupcli.checkpoints.files import FileVersion, read_bytes

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 1 << 16


class _Slice(io.RawIOBase):
    def __init__(self, file: FileVersion, offset: int, length: int) -> None:
        super().__init__()
        self._file, self._offset, self._length = file, offset, length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        if start + offset < 0:
            raise ValueError("a position before the beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._length - self._at))
        got = read_bytes(self._file, self._offset + self._at, wanted) if wanted else b""
        view[: len(got)] = got
        self._at += len(got)
        return len(got)


def open_slice(file: FileVersion, offset: int = 0, length: int | None = None) -> io.BufferedReader:
    """`length` bytes of `file` from `offset` (None: all that follow), read at positions; the file is not opened again.

    What lies outside the file reads as its end.
    """
    size = max(0, file.size - offset)
    return io.BufferedReader(_Slice(file, offset, size if length is None else min(length, size)), BUFFER)
