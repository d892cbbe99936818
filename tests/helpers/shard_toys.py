"""Shards of the WebDataset layout, written by Python's own tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.pictures import noise


def write_shard(file: Path, members: Sequence[tuple[str, bytes]], *, format_: int = tarfile.PAX_FORMAT) -> Path:
    """A .tar file with these members, names and contents, in their order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=format_) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def picture(folder: Path, suffix: str = ".png", *, seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """An encoded picture of noise."""
    return noise(folder / f".scratch{suffix}", seed=seed, size=size).read_bytes()


def sample(folder: Path, key: str, label: int, *, suffix: str = ".png", seed: int = 0) -> list[tuple[str, bytes]]:
    """`key.png` and `key.cls`."""
    return [(f"{key}{suffix}", picture(folder, suffix, seed=seed)), (f"{key}.cls", str(label).encode())]
