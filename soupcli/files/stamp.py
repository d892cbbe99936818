"""What changes when a file is replaced or written to, without reading all of it; and the hash of all of it."""

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
    """Size, times and place of a file, and of a large one a sample of its content.

    The time of change (ctime) cannot be put back: a file that was replaced has another stamp, whatever its time of
    modification says.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    sample: str = ""

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The regular file at `path`; links are followed. Raises OSError."""
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "not a regular file", str(path))
        sample = sample_of(path, found.st_size) if found.st_size > SAMPLED else ""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino, sample)

    def is_young(self, now_ns: int) -> bool:
        """Whether the next change may leave its times as they are."""
        return max(self.mtime_ns, self.ctime_ns) > now_ns - YOUNG

    @property
    def text(self) -> str:
        """All of it, as one word."""
        return "-".join(map(str, self))


def sample_of(path: Path, size: int) -> str:
    """SHA-256 of SAMPLES pieces of the file, its first and last bytes among them. Raises OSError."""
    digest = hashlib.sha256()
    file = os.open(path, OPENED)
    try:
        for number in range(SAMPLES):
            digest.update(os.pread(file, SAMPLE, max(0, size - SAMPLE) * number // (SAMPLES - 1)))
    finally:
        os.close(file)
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of all of the file, in hexadecimal. Raises OSError."""
    digest, chunk = hashlib.sha256(), memoryview(bytearray(CHUNK))
    file = os.open(path, OPENED)
    try:
        while got := os.readv(file, [chunk]):
            digest.update(chunk[:got])
    finally:
        os.close(file)
    return digest.hexdigest()
