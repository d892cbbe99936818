"""The two containers of torch.save: a zip archive (since torch 1.6), and pickles with storages after them (before).

Both give the pickled object, and where the bytes of each storage lie. No tensor data is read.
"""

from __future__ import annotations

import struct
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.formats.pickles.machine import STORAGE, PickleError, budget_of
from soupcli.checkpoints.formats.pickles.stand_ins import PersistentId
from soupcli.checkpoints.formats.pickles.tensors import ITEM_SIZES, Storage, storage_of
from soupcli.checkpoints.formats.pickles.unpickler import Unpickler
from soupcli.checkpoints.formats.soup_mark import RECORD, tail_of
from soupcli.checkpoints.formats.zip_directory import BrokenZip, Record, read_directory
from soupcli.checkpoints.formats.zip_files import other_archive, refuse_other_archives
from soupcli.errors import CheckpointError
from soupcli.files.reading import ByteRange, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from soupcli.files.reading import FileVersion

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of torch.save before 1.6, as a pickle has it
SAVE_AGAIN = "copy or save the file again"
MAX_PICKLE = 200_000_000
LOCAL_HEADER = 30  # bytes of a zip archive's local file header before the name
MOST_OBJECTS = 80_000  # tensors in a pickle: 20,000 with their optimizer
STORED = 0


class SavedObject(NamedTuple):
    """The result of one call of torch.save: an object with stand-ins, and the bytes of a storage by its key."""

    content: Any
    find_storage: Callable[[str], ByteRange | None]
    mark: ByteRange | None = None  # of a soup: see soup_mark.py
    start: int = 0  # where the offsets of long texts count from

    def span_of(self, storage: Storage) -> ByteRange:
        """The bytes of a storage, or none if they are not there."""
        root = self.find_storage(storage.key) or ByteRange(0, 0)
        if storage.view is None:
            return root
        _, first, numel = storage.view
        size = ITEM_SIZES.get(storage.dtype, 1)
        return ByteRange(root.offset + first * size, numel * size if first + numel <= root.size // size else 0)


def is_torch_file(file: FileVersion) -> bool:
    """Whether the file begins as `torch.save` begins it."""
    head = read_bytes(file, 0, 64)
    return head.startswith(ZIP_MAGIC) or _is_legacy(head)


def _is_legacy(head: bytes) -> bool:
    return head[:1] == b"\x80" and LEGACY_NUMBER in head[2 : 2 + 9 + len(LEGACY_NUMBER)]  # 9: a frame of protocol 4


def holds_a_pickle(file: FileVersion) -> bool:
    """Whether it is an archive as `torch.save` writes them, not any other zip file such as a program of TorchScript."""
    if read_bytes(file, 0, 4) != ZIP_MAGIC:
        return is_torch_file(file)
    try:
        names = _names(file)
    except CheckpointError:
        return True  # broken: whoever opens it says how
    return any(name.endswith("data.pkl") for name in names) and other_archive(names) is None


def refuse_program(file: FileVersion) -> None:
    """Raises CheckpointError if the file is an archive of another kind, such as a program of TorchScript."""
    if file.size and read_bytes(file, 0, 4) == ZIP_MAGIC:
        refuse_other_archives(file, _names(file))


def program_in(file: FileVersion) -> str | None:
    """Return what an archive is if it holds a network as a program, such as one of TorchScript."""
    if not file.size or read_bytes(file, 0, 4) != ZIP_MAGIC:
        return None
    try:
        kind = other_archive(_names(file))
    except CheckpointError:
        return None  # broken: it is carried on as it is
    return f"is {kind.what}" if kind is not None and kind.is_export else None


def read_object(file: FileVersion, offset: int = 0, length: int | None = None) -> SavedObject:
    """Returns what torch.save wrote into (a part of) `file`. Raises CheckpointError if it is broken or another kind."""
    length = file.size - offset if length is None else length
    part = file, offset, length
    reader = _read_zip if read_bytes(file, offset, 4) == ZIP_MAGIC else _read_legacy
    try:
        if part in _refused:
            raise PickleError(_refused[part])
        return reader(*part)
    except PickleError as cause:
        _refused[part] = str(cause)
        raise CheckpointError(f"{file.path}: not opened: {cause}", hint=SAVE_AGAIN) from cause


# Why: several ask what a file holds, and a pickle that takes too long would take it each time.
_refused: dict[tuple[FileVersion, int, int], str] = {}


def _read_zip(file: FileVersion, offset: int, length: int) -> SavedObject:
    records = _Records(file, offset, length)
    pickled = records.get("data.pkl")
    if pickled is None:
        raise CheckpointError(f"{file.path}: a zip archive without data.pkl, which torch.save writes", hint=SAVE_AGAIN)
    if pickled.size > MAX_PICKLE:
        raise CheckpointError(f"{file.path}: its pickle has {pickled.size} bytes, at most {MAX_PICKLE} are read")
    _check_byte_order(file, records)
    budget = budget_of(pickled.size)
    unpickler = Unpickler(
        lambda at, count: read_bytes(file, pickled.offset + at, max(0, min(count, pickled.size - at))),
        budget=budget._replace(data=max(budget.data, STORAGE * min(len(records), MOST_OBJECTS))),
    )
    return SavedObject(unpickler.load(), lambda key: records.get(f"data/{key}"), records.get(RECORD), pickled.offset)


def _names(file: FileVersion) -> list[str]:
    return [record.name for record in _directory(file, 0, file.size)]


@lru_cache(maxsize=2)  # of one file, asked for by all that look whose it is
def _directory(file: FileVersion, offset: int, length: int) -> list[Record]:
    try:
        return read_directory(file, offset, length)
    except BrokenZip as cause:
        raise CheckpointError(f"{file.path}: a broken zip archive: {cause}", hint=SAVE_AGAIN) from cause


class _Records:
    """Where the data of each record of an archive lies. The local header is read when the record is asked for."""

    def __init__(self, file: FileVersion, offset: int, length: int) -> None:
        self._file, self._offset, self._length = file, offset, length
        listed = _directory(file, offset, length)
        refuse_other_archives(file, [record.name for record in listed])
        compressed = next((record.name for record in listed if record.method != STORED), None)
        if compressed is not None:
            raise CheckpointError(f"{file.path}: record {compressed!r} is compressed, which torch.save never does")
        self._listed = {record.name.partition("/")[2]: record for record in listed}  # without the archive's own name

    def __len__(self) -> int:
        return len(self._listed)

    def get(self, name: str) -> ByteRange | None:
        """Return the place of a record in the file, or None. Raises CheckpointError if the file ends before it."""
        record = self._listed.get(name)
        if record is None:
            return None
        header = read_bytes(self._file, self._offset + record.header, LOCAL_HEADER)
        begin = record.header + LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30])) if header[29:] else self._length
        if begin + record.size > self._length or record.header < 0:
            raise CheckpointError(f"{self._file.path}: a broken zip archive: {name!r} ends after it", hint=SAVE_AGAIN)
        return ByteRange(self._offset + begin, record.size)


def _check_byte_order(file: FileVersion, records: _Records) -> None:
    order = records.get("byteorder")
    if order is not None and read_bytes(file, order.offset, min(order.size, 16)) != sys.byteorder.encode():
        raise CheckpointError(f"{file.path}: written on a machine of another byte order", hint=SAVE_AGAIN)


def _read_legacy(file: FileVersion, offset: int, length: int) -> SavedObject:
    """Three pickles about the format, the object, the list of its storages, then each with its size before it."""
    dtypes: dict[str, str] = {}  # of storages, as they are referred to first

    def persistent(value: Any) -> Any:
        if isinstance(value, tuple) and len(value) > 1 and value[0] == "module":
            return value[1]  # the class of a module, with its source beside it
        reference = PersistentId(value)
        storage = storage_of(reference)
        dtypes.setdefault(storage.key, storage.dtype)
        return reference

    end = offset + length
    unpickler = Unpickler(
        lambda at, count: read_bytes(file, offset + at, max(0, min(count, length - at))),
        budget=budget_of(length),
        persistent=persistent,
    )
    try:
        _, _, system = unpickler.load(), unpickler.load(), unpickler.load()
        content, keys = unpickler.load(), unpickler.load()
    except KeyError as cause:
        raise PickleError(f"a storage has the unknown type {cause}") from cause
    if not isinstance(system, dict) or not system.get("little_endian", True):
        raise CheckpointError(f"{file.path}: written on a machine of another byte order", hint=SAVE_AGAIN)
    roots = _spans(keys, dtypes, file, offset + unpickler.at, end)
    return SavedObject(content, roots.get, tail_of(file) if end == file.size else None, offset)


def _spans(keys: Any, dtypes: dict[str, str], file: FileVersion, at: int, end: int) -> dict[str, ByteRange]:
    spans: dict[str, ByteRange] = {}
    for key in keys if isinstance(keys, list) else ():
        header = read_bytes(file, at, 8)
        if len(header) < 8 or str(key) not in dtypes:
            raise PickleError(f"storage {key!r} is missing")
        nbytes = struct.unpack("<q", header)[0] * ITEM_SIZES.get(dtypes[str(key)], 1)
        if not 0 <= nbytes <= end - at - 8:
            raise PickleError(f"storage {key!r} needs {nbytes} bytes, the file has {max(0, end - at - 8)} left")
        spans[str(key)] = ByteRange(at + 8, nbytes)
        at += 8 + nbytes
    return spans
