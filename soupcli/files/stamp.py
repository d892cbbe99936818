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
CHUNK = 1 << 20
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
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of the regular file at `path`. Links are followed. Raises OSError."""
        found = path.stat()
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


def sample_of(path: Path, size: int) -> str:
    """Return the SHA-256 of SAMPLES pieces of the file, including its first and last bytes. Raises OSError."""
    digest = hashlib.sha256()
    file = os.open(path, OPENED)
    try:
        for number in range(SAMPLES):
            digest.update(os.pread(file, SAMPLE, max(0, size - SAMPLE) * number // (SAMPLES - 1)))
    finally:
        os.close(file)
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """Return the SHA-256 of the whole file, in hexadecimal. Raises OSError."""
    digest, chunk = hashlib.sha256(), memoryview(bytearray(CHUNK))
    file = os.open(path, OPENED)
    try:
        while got := os.readv(file, [chunk]):
            digest.update(chunk[:got])
    finally:
        os.close(file)
    return digest.hexdigest()
