"""Writes the mark of a soup into a copy of an ingredient's file: see checkpoints/formats/soup_mark.py.

    place = add_mark(path, b'{"members": [...]}')          # replaced later by text of the same length, at `place`

All other bytes stay where they are, but for an archive's directory, which stands at its end.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from soupcli.checkpoints.formats.soup_mark import MAGIC, RECORD, TAIL, tail_of
from soupcli.checkpoints.formats.torch_archives import ZIP_MAGIC
from soupcli.files.reading import ByteRange, FileVersion, read_bytes
from soupcli.mixing.zip_records import zip_records

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from soupcli.mixing.zip_records import ZipRecord


def marks_among(records: Iterable[ZipRecord]) -> frozenset[str]:
    """Return the names of the records that mark a soup."""
    return frozenset(record.name for record in records if record.name.endswith(f"/{RECORD}"))


def add_mark(path: Path, text: bytes) -> ByteRange:
    """Add `text` where the loaders of a file do not look, and return its place. A mark behind the end is replaced."""
    file = FileVersion.of(path)
    if read_bytes(file, 0, len(ZIP_MAGIC)) == ZIP_MAGIC:
        return _add_record(path, text)
    old = tail_of(file)
    place = ByteRange(file.size if old is None else old.offset, len(text))
    with path.open("r+b") as out:
        out.seek(place.offset)
        out.write(text + TAIL.pack(len(text), MAGIC))
        out.truncate()
    return place


def _add_record(path: Path, text: bytes) -> ByteRange:
    with zipfile.ZipFile(path, "a") as archive:
        name = f"{archive.namelist()[0].partition('/')[0]}/{RECORD}"
        info = zipfile.ZipInfo(name)  # of 1980, as the format's first day
        info.create_system, info.external_attr = 3, 0
        archive.writestr(info, text)
    record = next(record for record in zip_records(path) if record.name == name)
    return ByteRange(record.begin, record.size)
