"""Reads files at positions, many at once, within the open-file limit, and notices when they change."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import itertools
import mmap
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from soupcli.errors import CheckpointError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from torch import Tensor
from collections.abc import Mapping

MOST_OPEN = 1024
HASH_CHUNK = 1 << 20
WRITABLE = 0x200  # PyBUF_WRITE

_view_of_memory = ctypes.pythonapi.PyMemoryView_FromMemory  # a ctypes array would be a new type for each length
_view_of_memory.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_view_of_memory.restype = ctypes.py_object


@dataclass(frozen=True)
class FileVersion:
    """One file as it was when its header was read."""

    path: Path
    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileVersion:
        """Record the present state of the file at `path`. Raises CheckpointError if there is none."""
        try:
            return cls._from_stat(path, path.stat())
        except OSError as cause:
            raise CheckpointError(f"{path}: {cause.strerror}") from cause

    @classmethod
    def _from_stat(cls, path: Path, stat: os.stat_result) -> FileVersion:
        return cls(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino)

    def __hash__(self) -> int:
        return hash((self.device, self.inode, self.mtime_ns))

    def check(self, descriptor: int) -> None:
        """Raises CheckpointError if the open file is not the recorded one any more."""
        now = os.fstat(descriptor)
        if (
            now.st_size != self.size
            or now.st_mtime_ns != self.mtime_ns
            or now.st_ino != self.inode
            or now.st_dev != self.device
        ):
            was = f"{self.size} bytes when it was opened, {now.st_size} now"
            raise CheckpointError(
                f"{self.path}: changed while it was read ({was})", hint="run again when nothing writes to it"
            )


class ByteRange(NamedTuple):
    """Bytes of a file."""

    offset: int  # of the first one in the file
    size: int


class _Opened:
    """One open file and the number of its readers."""

    __slots__ = ("descriptor", "readers")

    def __init__(self, descriptor: int, readers: int) -> None:
        self.descriptor = descriptor
        self.readers = readers


class _OpenFiles:
    """The most recently read files, kept open. One without readers is closed when another needs its place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[FileVersion, _Opened] = OrderedDict()

    def enter(self, file: FileVersion) -> _Opened:
        """Open the file for one more reader, which must leave."""
        with self._lock:
            opened = self._enter(file)
        if opened is None:
            descriptor = _open_recorded(file)  # may take long: others read meanwhile
            with self._lock:
                opened = self._enter(file)
                if opened is None:
                    self._make_room()
                    opened = self._open[file] = _Opened(descriptor, readers=1)
                    return opened
            os.close(descriptor)
        return opened

    def leave(self, opened: _Opened) -> None:
        """Remove one reader."""
        with self._lock:
            opened.readers -= 1

    def _enter(self, file: FileVersion) -> _Opened | None:
        opened = self._open.get(file)
        if opened is not None:
            self._open.move_to_end(file)
            opened.readers += 1
        return opened

    def _make_room(self) -> None:
        spare = len(self._open) - _most_open() + 1
        if spare > 0:
            idle = (file for file, opened in self._open.items() if not opened.readers)
            for file in list(itertools.islice(idle, spare)):
                os.close(self._open.pop(file).descriptor)


def _most_open() -> int:
    """Return half of the process's limit of open files, because other code needs some too."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_OPEN if limit == resource.RLIM_INFINITY else max(8, min(MOST_OPEN, limit // 2))


def _open_recorded(file: FileVersion) -> int:
    try:
        descriptor = os.open(file.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as cause:
        raise CheckpointError(f"{file.path}: {cause.strerror}") from cause
    try:
        file.check(descriptor)
    except CheckpointError:
        os.close(descriptor)
        raise
    return descriptor


_open_files = _OpenFiles()


class _Reading:
    """`with _Reading(file) as descriptor`: opens the file; errors of the system become CheckpointError."""

    __slots__ = ("_file", "_opened")

    def __init__(self, file: FileVersion) -> None:
        self._file = file

    def __enter__(self) -> int:
        self._opened = _open_files.enter(self._file)
        return self._opened.descriptor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open_files.leave(self._opened)
        if isinstance(error, OSError):
            raise CheckpointError(f"{self._file.path}: {error.strerror}") from error


def read_at(file: FileVersion, offset: int, out: Tensor | memoryview) -> None:
    """Fill `out` (contiguous, CPU) with the bytes from `offset`. Raises CheckpointError if the file ends early."""
    view = out if isinstance(out, memoryview) else memory_of(out)
    nbytes = len(view)
    if nbytes == 0:
        return
    with _Reading(file) as descriptor:
        done = os.preadv(descriptor, [view], offset)
        while done < nbytes:
            got = os.preadv(descriptor, [view[done:]], offset + done)
            if got == 0:
                raise CheckpointError(
                    f"{file.path}: ends at byte {offset + done}, {offset + nbytes} were expected",
                    hint="the file was cut short: copy it again",
                )
            done += got
        file.check(descriptor)


def memory_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor as bytes, without a copy. It is valid while the tensor lives."""
    nbytes = tensor.numel() * tensor.element_size()
    view: memoryview = _view_of_memory(tensor.data_ptr(), nbytes, WRITABLE) if nbytes else memoryview(b"")
    return view


def paged(nbytes: int) -> memoryview:
    """Return new memory of zeros that begins with a page, as a file does in the system's cache.

    Zen 3 copies five times as slowly to a place that is 1 to 31 bytes further into its page than the source is in its
    own (https://lunnova.dev/articles/ryzen-slow-short-rep-mov). Large memory of malloc begins 16 bytes into a page.
    """
    return memoryview(mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def write_at(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`. Raises OSError if the disk is full."""
    view, done = memoryview(data), 0
    while done < len(view):
        put = os.pwrite(descriptor, view[done:], offset + done)
        if put == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += put


def read_bytes(file: FileVersion, offset: int, count: int) -> bytes:
    """Return `count` bytes of `file` from `offset`, or fewer if it ends."""
    with _Reading(file) as descriptor:
        return os.pread(descriptor, count, offset)


def announce(file: FileVersion) -> None:
    """Ask the system to read the file into its cache in the background, if it can. Returns at once."""
    if hasattr(os, "posix_fadvise"):
        with _Reading(file) as descriptor:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


def sha256(file: FileVersion) -> str:
    """Return the SHA-256 of the whole file, in hexadecimal. Raises CheckpointError if it changes meanwhile."""
    digest, chunk = hashlib.sha256(), paged(HASH_CHUNK)
    with _Reading(file) as descriptor:
        offset = 0
        while got := os.preadv(descriptor, [chunk], offset):
            digest.update(chunk[:got])
            offset += got
        file.check(descriptor)
    return digest.hexdigest()


SAMPLES = 32
SAMPLE = 4096  # bytes


def distinct(files: Sequence[FileVersion]) -> list[FileVersion]:
    """Return the files without duplicates: by device and inode, then by content."""
    kept: list[FileVersion] = []
    for file in files:
        if not any(same_file(file, other) or same_content(file, other) for other in kept):
            kept.append(file)
    return kept


def same_file(one: FileVersion, other: FileVersion) -> bool:
    """Whether two paths lead to one file."""
    return (one.device, one.inode) == (other.device, other.inode)


def same_content(one: FileVersion, other: FileVersion) -> bool:
    """Whether two files hold the same bytes. They are read whole only if samples agree."""
    if one.size != other.size:
        return False
    places = sorted({max(0, one.size - SAMPLE), *(one.size * number // SAMPLES for number in range(SAMPLES))})
    if any(read_bytes(one, at, SAMPLE) != read_bytes(other, at, SAMPLE) for at in places):
        return False
    return sha256(one) == sha256(other)


BUFFER = 1 << 16


class _Slice(io.RawIOBase):
    def __init__(self, file: FileVersion, offset: int, length: int) -> None:
        super().__init__()
        self._file, self._offset, self._length = file, offset, length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        if start + offset < 0:
            raise ValueError("a position before the beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._length - self._at))
        got = read_bytes(self._file, self._offset + self._at, wanted) if wanted else b""
        view[: len(got)] = got
        self._at += len(got)
        return len(got)


def open_slice(file: FileVersion, offset: int = 0, length: int | None = None) -> io.BufferedReader:
    """Return a reader of `length` bytes of `file` from `offset` on (None: all). The file is not opened again.

    Positions beyond the file's end read as its end.
    """
    size = max(0, file.size - offset)
    return io.BufferedReader(_Slice(file, offset, size if length is None else min(length, size)), BUFFER)


def hash_of_files(hashes: Mapping[str, str]) -> str:
    """Return `sha256:...` of one file, or of the sorted lines `name hash` of several."""
    if len(hashes) == 1:
        return f"sha256:{next(iter(hashes.values()))}"
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
