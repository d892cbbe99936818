"""Several names of one file, and copies of it: trainers link or copy a checkpoint to `last` and `model_best`."""

from __future__ import annotations

from collections.abc import Sequence

from soupcli.checkpoints.files import FileVersion, read_bytes, sha256

SAMPLES = 32
SAMPLE = 4096  # bytes


def distinct(files: Sequence[FileVersion]) -> list[FileVersion]:
    """The files without those that are another one of them: by device and inode, then by content."""
    kept: list[FileVersion] = []
    for file in files:
        if not any(same_file(file, other) or same_content(file, other) for other in kept):
            kept.append(file)
    return kept


def same_file(one: FileVersion, other: FileVersion) -> bool:
    """Whether two names lead to one file."""
    return (one.device, one.inode) == (other.device, other.inode)


def same_content(one: FileVersion, other: FileVersion) -> bool:
    """Whether two files hold the same bytes; all of them are read only where samples agree."""
    if one.size != other.size:
        return False
    places = sorted({max(0, one.size - SAMPLE), *(one.size * number // SAMPLES for number in range(SAMPLES))})
    if any(read_bytes(one, at, SAMPLE) != read_bytes(other, at, SAMPLE) for at in places):
        return False
    return sha256(one) == sha256(other)
