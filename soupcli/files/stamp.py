"""Stamps of files, which change when a file is replaced or written to, and hashes of whole files."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

SAMPLED = 1 << 20  # bytes: larger files have a sample in their stamp
SAMPLES = 32
SAMPLE = 4096  # bytes
YOUNG = 2_000_000_000  # nanoseconds: file systems tell times apart no finer
LEAST, CHUNK = 1 << 12, 1 << 20  # bytes that are read at once: to clear more takes longer than to read a small file
OPENED = os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)  # a pipe does not hold anybody up


class Stamp(NamedTuple):
    """Size, times, device and inode of a file, and for a large one a sample of its content.

    The time of change (ctime) cannot be set back, so a replaced file has another stamp whatever its modification time.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    sample: str = ""

    @classmethod
    def of(cls, path: Path | str) -> Stamp:
        """Return the stamp of the regular file at `path`. Links are followed. Raises OSError."""
        found = os.stat(path)  # noqa: PTH116 - a text will do, of which there may be very many
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "not a regular file", str(path))
        sample = sample_of(path, found.st_size) if found.st_size > SAMPLED else ""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino, sample)

    def is_young(self, now_ns: int) -> bool:
        """Whether the file is so young that the next change may not change its times."""
        return max(self.mtime_ns, self.ctime_ns) > now_ns - YOUNG

    @property
    def text(self) -> str:
        """The stamp as one word."""
        return "-".join(map(str, self))


def sample_of(path: Path | str, size: int) -> str:
    """Return the SHA-256 of SAMPLES pieces of the file, including its first and last bytes. Raises OSError."""
    digest = hashlib.sha256()
    file = os.open(path, OPENED)
    try:
        for number in range(SAMPLES):
            digest.update(os.pread(file, SAMPLE, max(0, size - SAMPLE) * number // (SAMPLES - 1)))
    finally:
        os.close(file)
    return digest.hexdigest()


def content_hash(path: Path | str) -> str:
    """Return the SHA-256 of the whole file, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    file = os.open(path, OPENED)
    try:
        chunk = memoryview(bytearray(max(LEAST, min(CHUNK, os.fstat(file).st_size + 1))))
        while got := os.readv(file, [chunk]):
            digest.update(chunk[:got])
    finally:
        os.close(file)
    return digest.hexdigest()
