"""The records of a zip archive of `torch.save`: the places of their bytes and checksums, and a copy without some.

    records = zip_records(path)
    copy_records(path, records, target, {"archive/data.pkl": new_pickle}, left_out={"archive/data/3"})
    correct_checksums(descriptor, records)                 # after bytes were replaced in place

Format: APPNOTE 6.3, only uncompressed records.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from soupcli.files.reading import FileVersion, open_slice, write_at

LOCAL_HEADER, CENTRAL_HEADER = 30, 46  # bytes before the name
CRC_IN_LOCAL, CRC_IN_CENTRAL = 14, 16
DESCRIPTOR_FOLLOWS = 0x8  # flag: the checksum comes after the data
DESCRIPTOR = b"PK\x07\x08"
ALIGNMENT = 64  # of the data, as torch writes them
PADDING = 0x4246  # "FB": the extra field that torch pads with
ZIP64_EXTRA = 20
CHUNK = 1 << 22


class ZipRecord(NamedTuple):
    """One record: the places of its data and of its checksum in the file."""

    name: str
    begin: int
    size: int
    checksums: tuple[int, ...]

    def moved(self, by: int) -> ZipRecord:
        """The same record, so many bytes further on."""
        return self._replace(begin=self.begin + by, checksums=tuple(place + by for place in self.checksums))


def zip_records(path: Path, offset: int = 0, length: int | None = None) -> list[ZipRecord]:
    """The records of the archive in (a part of) a file, in the order of its directory; places are the file's."""
    with open_slice(FileVersion.of(path), offset, length) as part:
        return [record.moved(offset) for record in _records(part)]


def _records(file: BinaryIO) -> list[ZipRecord]:
    with zipfile.ZipFile(file) as archive:
        found, at = [], archive.start_dir
        for info in archive.infolist():
            file.seek(at)
            central = file.read(CENTRAL_HEADER)
            name, extra, comment = struct.unpack("<3H", central[28:34])
            file.seek(info.header_offset)
            local = file.read(LOCAL_HEADER)
            begin = info.header_offset + LOCAL_HEADER + sum(struct.unpack("<2H", local[26:30]))
            checksums = [at + CRC_IN_CENTRAL]
            if info.flag_bits & DESCRIPTOR_FOLLOWS:
                file.seek(begin + info.file_size)
                checksums.append(begin + info.file_size + 4 * (file.read(4) == DESCRIPTOR))
            if struct.unpack("<I", local[CRC_IN_LOCAL : CRC_IN_LOCAL + 4])[0] == info.CRC:
                checksums.append(info.header_offset + CRC_IN_LOCAL)
            found.append(ZipRecord(info.filename, begin, info.file_size, tuple(checksums)))
            at += CENTRAL_HEADER + name + extra + comment
    return found


def copy_records(
    source: Path,
    records: Iterable[ZipRecord],
    target: Path,
    contents: Mapping[str, bytes],
    left_out: Collection[str],
    sizes: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Write a new archive at `target`, without some records, with other `contents` of some, zeros in those of `sizes`.

    Returns the first byte of each record's data. The same records give the same bytes.
    """
    begins: dict[str, int] = {}
    with source.open("rb") as file, target.open("xb") as out, zipfile.ZipFile(out, "w") as archive:
        for record in records:
            if record.name in left_out:
                continue
            content = contents.get(record.name)
            info = zipfile.ZipInfo(record.name)  # of 1980, as the format's first day
            info.create_system, info.external_attr = 3, 0
            zeros = (sizes or {}).get(record.name)
            info.file_size = len(content) if content is not None else record.size if zeros is None else zeros
            info.extra = _padding(out.tell(), info)
            with archive.open(info, "w") as entry:
                begins[record.name] = out.tell()
                if content is not None:
                    entry.write(content)
                    continue
                if zeros is not None:
                    for at in range(0, zeros, CHUNK):
                        entry.write(bytes(min(CHUNK, zeros - at)))
                    continue
                file.seek(record.begin)
                left = record.size
                while left:
                    chunk = file.read(min(CHUNK, left))
                    if not chunk:
                        raise OSError(f"{source}: ends early")
                    entry.write(chunk)
                    left -= len(chunk)
    return begins


def _padding(at: int, info: zipfile.ZipInfo) -> bytes:
    """An extra field after which the data begins at a multiple of 64 bytes."""
    is_large = info.file_size * 1.05 > zipfile.ZIP64_LIMIT  # as zipfile decides
    header = LOCAL_HEADER + len(info.filename.encode()) + ZIP64_EXTRA * is_large + 4
    gap = -(at + header) % ALIGNMENT
    return struct.pack("<HH", PADDING, gap) + b"Z" * gap


def correct_checksums(descriptor: int, records: Iterable[ZipRecord]) -> None:
    """Write the checksum of the bytes that are there now wherever the archive states it."""
    for record in records:
        found, at, end = 0, record.begin, record.begin + record.size
        while at < end:
            chunk = os.pread(descriptor, min(CHUNK, end - at), at)
            if not chunk:
                raise OSError(f"{record.name}: ends early")
            found = zlib.crc32(chunk, found)
            at += len(chunk)
        for place in record.checksums:
            write_at(descriptor, struct.pack("<I", found), place)
