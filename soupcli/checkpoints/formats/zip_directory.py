"""Read the directory of a zip archive: names, sizes and places of its records, and none of their data.

    records = read_directory(file, offset, length)         # raises BrokenZip

zipfile makes a large object of each record, so that a small file of many records costs much. Format: APPNOTE 6.3.
"""

from __future__ import annotations

from struct import Struct, error
from typing import TYPE_CHECKING, NamedTuple

from soupcli.files.reading import read_bytes

if TYPE_CHECKING:
    from soupcli.files.reading import FileVersion

END = Struct("<4s4x2HLL2x")  # signature, records here, records, size and begin of the directory
END64 = Struct("<4s20x4Q")  # the same
LOCATOR = Struct("<4s4xQ4x")  # signature, place of END64
CENTRAL = Struct("<4s4x2H8x2L3H8xL")  # signature, flags, method, sizes, lengths of name, extra, comment; begin
MOST_COMMENT = 1 << 16
MOST_RECORDS, MOST_BYTES = 120_000, 20_000_000  # of a directory
UTF8 = 0x800  # flag
UNSET = 0xFFFFFFFF  # the number is in the extra field
EXTRA_OF_ZIP64 = 1


class BrokenZip(ValueError):
    """The archive has no directory, or one that does not hold."""


class Record(NamedTuple):
    """One record of the archive."""

    name: str
    method: int  # 0: stored as it is
    size: int
    header: int  # place of its local header, from the archive's begin


def read_directory(file: FileVersion, offset: int, length: int) -> list[Record]:
    """Return the records of the archive that is `length` bytes of `file` from `offset`. Raises BrokenZip."""
    try:
        return _records(*_directory(file, offset, length))
    except (error, IndexError, UnicodeDecodeError) as cause:
        raise BrokenZip("its directory is broken") from cause


def _directory(file: FileVersion, offset: int, length: int) -> tuple[bytes, int, int]:
    """Return the directory's bytes, its number of records, and how many bytes stand before the archive."""
    tail_size = min(length, END.size + MOST_COMMENT + LOCATOR.size)
    tail = read_bytes(file, offset + length - tail_size, tail_size)
    at = tail.rfind(b"PK\5\6", 0, len(tail) - END.size + 4)
    if at < 0:
        raise BrokenZip("it has no directory: it is cut short")
    end = length - tail_size + at
    _, count, total, size, begin = _end_of(tail, at)
    if at >= LOCATOR.size and tail.startswith(b"PK\6\7", at - LOCATOR.size):
        place = LOCATOR.unpack_from(tail, at - LOCATOR.size)[1]
        if place + END64.size <= length:
            _, count, total, size, begin = END64.unpack(read_bytes(file, offset + place, END64.size))
            end = place
    if count != total:
        raise BrokenZip("it has several parts")
    if count > MOST_RECORDS or size > MOST_BYTES:
        raise BrokenZip(f"its directory has {count} records in {size} bytes, at most {MOST_RECORDS} are read")
    if size > end or count * CENTRAL.size > size:
        raise BrokenZip("its directory is larger than it can be")
    return read_bytes(file, offset + end - size, size), count, end - size - begin


def _end_of(tail: bytes, at: int) -> tuple[bytes, int, int, int, int]:
    found: tuple[bytes, int, int, int, int] = END.unpack_from(tail, at)
    return found


def _records(directory: bytes, count: int, before: int) -> list[Record]:
    records, at = [], 0
    for _ in range(count):
        signature, flags, method, _, size, name_length, extra, comment, header = CENTRAL.unpack_from(directory, at)
        if signature != b"PK\1\2":
            raise BrokenZip("its directory is broken")
        begin = at + CENTRAL.size
        at = begin + name_length + extra + comment
        if UNSET in (size, header):
            size, header = _large(directory[begin + name_length : at - comment], size, header)
        name = directory[begin : begin + name_length].decode("utf-8" if flags & UTF8 else "cp437")
        records.append(Record(name, method, size, header + before))
    return records


def _large(extra: bytes, size: int, header: int) -> tuple[int, int]:
    """Return size and place of a record whose directory entry has no room for them."""
    compressed_too = size == UNSET
    while extra:
        kind, length = Struct("<2H").unpack_from(extra)
        if kind == EXTRA_OF_ZIP64:
            numbers = Struct(f"<{length // 8}Q").unpack_from(extra, 4)
            return (numbers[0] if compressed_too else size), (numbers[-1] if header == UNSET else header)
        extra = extra[4 + length :]
    raise BrokenZip("a record has no size")
