"""Pictures in folders: one sub-folder for each class, or any folders if a file says the labels.

Links to folders and to pictures are followed, as torchvision and timm do; a folder is entered once below each class
folder, so links that lead back to a folder above end there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from soupcli.datasets.saved_datasets import refuse_saved
from soupcli.errors import ValidationError
from soupcli.networks.network import IMAGE_FOLDER, ClassFolders

MAX_PICTURE = 256 * 2**20  # bytes of one encoded picture


class PictureFile(NamedTuple):
    """A picture in its own file, or in `nbytes` bytes of a larger file from `offset` on."""

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
        """The encoded picture, by one positioned read. Raises OSError, and ValidationError if it is no plain file."""
        file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
        try:
            if self.member:
                return read_exactly(file, self.nbytes, self.offset)
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise ValidationError(f"{self.path}: a pipe or a device, not a file", hint="remove or replace it")
            if found.st_size > MAX_PICTURE:
                raise ValidationError(f"{self.path}: {found.st_size} bytes, a picture has at most {MAX_PICTURE}")
            return read_exactly(file, found.st_size, 0)
        finally:
            os.close(file)


def read_exactly(file: int, nbytes: int, offset: int) -> bytes:
    """Return `nbytes` bytes of an open file from `offset`. Raises OSError if it ends before."""
    parts = []
    while nbytes:
        part = os.pread(file, nbytes, offset)
        if not part:
            raise OSError(f"ends {nbytes} bytes early")
        parts.append(part)
        nbytes, offset = nbytes - len(part), offset + len(part)
    return b"".join(parts)


SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}


class ClassPictures(NamedTuple):
    """Every picture with the name of its class, and the layout of the folders."""

    pictures: list[tuple[PictureFile, str]]
    empty: list[str]  # class folders without pictures
    nested: bool  # whether the innermost folders name other classes than those directly below the set
    outside: int  # pictures that lie in no class folder
    warning: str | None = None  # of a table that names the classes


def find(images: Path, folders: ClassFolders = IMAGE_FOLDER) -> ClassPictures:
    """Find every picture and the name of its class, sorted by path. Hidden files and folders are skipped.

    Raises ValidationError if there are no pictures.
    """
    found, outermost, innermost = [], set(), set()
    below, classes = _walk(images), _class_folders(images)
    for parts in below:
        if len(parts) > 1:
            outermost.add(parts[0])
            innermost.add(parts[-2])
            found.append((PictureFile(Path(images, *parts)), parts[-2] if folders.innermost else parts[0]))
    if not found:
        raise ValidationError(
            f"{images}: holds no pictures in class folders",
            hint=f"images: takes a folder with one folder of pictures ({', '.join(sorted(SUFFIXES))}) for each class, "
            "or .tar shards",
        )
    empty = sorted(set(classes) - outermost)
    return ClassPictures(found, empty, innermost != outermost, len(below) - len(found))


def find_flat(images: Path) -> list[PictureFile]:
    """Find every picture below the folder, sorted by path. Raises ValidationError if there is none."""
    return [PictureFile(images / name) for name in names_below(images)]


def names_below(images: Path) -> list[str]:
    """Return the names of the same pictures, relative to the folder and with slashes."""
    found = ["/".join(parts) for parts in _walk(images)]
    if not found:
        raise ValidationError(f"{images}: holds no pictures", hint=f"pictures are {', '.join(sorted(SUFFIXES))}")
    return found


def _class_folders(images: Path) -> list[str]:
    return [entry.name for entry in images.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


Parts = tuple[str, ...]  # the names of folders from the set's folder on, and the picture's; paths take longer to make


def _walk(images: Path) -> list[Parts]:
    """Return all pictures below the folder, sorted. Each class folder is walked by itself."""
    refuse_saved(images)
    if not images.is_dir():
        reason = "is no folder and no .tar shard" if images.exists() else "no such folder"
        raise ValidationError(f"{images}: {reason}", hint="images: takes a folder of class folders, or .tar shards")
    top = _identity(str(images))
    found: list[Parts] = []
    for entry in _entries(str(images)):
        if entry.is_dir():
            found.extend(_below(entry.path, (entry.name,), {top}))
        elif _is_picture(entry):
            found.append((entry.name,))
    return sorted(found)


def _below(folder: str, parts: Parts, entered: set[tuple[int, int]]) -> Iterator[Parts]:
    """Yield the pictures below `folder`; folders in `entered` are not entered again."""
    waiting = [(folder, parts)]
    while waiting:
        folder, parts = waiting.pop()
        if (identity := _identity(folder)) in entered:
            continue
        entered.add(identity)
        for entry in _entries(folder):
            if entry.is_dir():
                waiting.append((entry.path, (*parts, entry.name)))
            elif _is_picture(entry):
                yield (*parts, entry.name)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Entries that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)
    except OSError as cause:
        raise ValidationError(f"{folder}: {cause.strerror}", hint="make it readable, or move it away") from cause


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return f".{entry.name.rpartition('.')[2].lower()}" in SUFFIXES


def _identity(folder: str) -> tuple[int, int]:
    found = os.stat(folder)  # noqa: PTH116 - there may be very many
    return found.st_dev, found.st_ino
