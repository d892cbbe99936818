"""Pictures in folders: one sub-folder for each class, or any folders where a file says the labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from soupcli.errors import ValidationError


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


SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}


def find(images: Path) -> list[tuple[PictureFile, str]]:
    """Every picture and the name of its class, sorted by folder, then by path; hidden files and folders are none.

    Folders that are all numbers come in their order. Raises ValidationError where there are no pictures.
    """
    _check_folder(images)
    folders = [entry for entry in images.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    folders.sort(key=_by_number if all(entry.name.isdecimal() for entry in folders) else None)
    found = [(picture, folder.name) for folder in folders for picture in _below(folder)]
    if not found:
        raise ValidationError(
            f"{images}: holds no pictures in class folders",
            hint=f"images: takes a folder with one folder of pictures ({', '.join(sorted(SUFFIXES))}) for each class, "
            "or .tar shards",
        )
    return found


def find_flat(images: Path) -> list[PictureFile]:
    """Every picture below the folder, sorted by path. Raises ValidationError where there is none."""
    _check_folder(images)
    found = _below(images)
    if not found:
        raise ValidationError(f"{images}: holds no pictures", hint=f"pictures are {', '.join(sorted(SUFFIXES))}")
    return found


def _check_folder(images: Path) -> None:
    if not images.is_dir():
        reason = "is no folder and no .tar shard" if images.exists() else "no such folder"
        raise ValidationError(f"{images}: {reason}", hint="images: takes a folder of class folders, or .tar shards")


def _below(folder: Path) -> list[PictureFile]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return [PictureFile(path) for path in files]


def _by_number(folder: Path) -> tuple[int, str]:
    """ImageNet-V2's folders are 0 to 999, and 10 comes after 9."""
    return int(folder.name), folder.name
