"""Files and folders that appear whole or not at all: written aside, flushed to disk, renamed.

    write_whole(path, content)                             # a file
    take_place(new, place)                                 # a folder that was filled aside gets its name

If a file system cannot exchange two folders, the old one is kept beside until the new one is in place.
`finish_begun(place)` finishes what a killed process had begun.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from soupcli.errors import OutputError
from soupcli.files.unfinished import aside, finishing, left_by_others, remove, remove_abandoned, unfinished

FLUSHED_AT_ONCE = 128 << 20  # bytes


def write_whole(path: Path, content: str | bytes, *, mode: int | None = None, flushed: bool = True) -> None:
    """Write `content` beside `path`, flush it to disk and rename it there: whole or not at all.

    Text is UTF-8. Bytes of a path that are none become escapes such as `\\udcff`, which JSON reads as they were.
    `mode` sets its mode bits; None means those that the umask leaves. A link stays, and its target is replaced.
    What a killed process left of the same file is removed. With `flushed` False it does not wait for the disk: for a
    file whose reader notices what a power failure has left of it. Raises OutputError if it cannot be written.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    place = Path(os.path.realpath(path))
    remove_abandoned(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(aside(place)) as new:
            with new.open("wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(data)
                if flushed:
                    file.flush()
                    os.fsync(file.fileno())
            new.replace(place)
    except OSError as cause:
        raise OutputError(f"{path}: {cause.strerror}: {len(data)} bytes are needed") from cause


def flush(path: Path) -> None:
    """Wait until the file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class EarlyFlush:
    """Has the system write a file to disk while it is filled, so that less is left to wait for at its end.

    with EarlyFlush(descriptor) as early:
        early.written(nbytes)                              # after each part, by one thread

    Raises the OSError of a disk that fails, from `written` or at the end: the system reports it only once.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pool = ThreadPoolExecutor(1, "flush")
        self._flushing: Future[None] | None = None
        self._waiting = 0  # bytes that were written since the last flush began

    def __enter__(self) -> Self:
        return self

    def written(self, nbytes: int) -> None:
        """Begin to flush if enough was written, and the last flush has ended."""
        self._waiting += nbytes
        if self._waiting < FLUSHED_AT_ONCE or (self._flushing is not None and not self._flushing.done()):
            return
        self._end()
        self._waiting = 0
        self._flushing = self._pool.submit(os.fsync, self._descriptor)

    def _end(self) -> None:
        """Wait until the flush has ended; raise its error."""
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            flushing.result()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._pool.shutdown()
        if error is None:
            self._end()


def flush_tree(folder: Path) -> None:
    """Wait until the folder and everything in it is on disk. Links and pipes in it are not opened."""
    for entry in list(os.scandir(folder)):
        if entry.is_dir(follow_symlinks=False):
            flush_tree(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            flush(Path(entry.path))
    flush(folder)


def check_file(path: Path) -> None:
    """Raise OutputError if no file can be written at `path`, before the work whose result goes there."""
    check_depth(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder, a file was expected", hint="name a file in it")
    if path.is_symlink() and not path.exists() and os.path.islink(os.path.realpath(path)):  # noqa: PTH114
        raise OutputError(f"{path}: is a link that leads to itself", hint="remove the link")
    is_device = path.is_absolute() and path.parts[1:2] in (("dev",), ("proc",))
    if is_device or (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
        raise OutputError(f"{path}: is no regular file", hint="--json prints a report to stdout")
    parent = next((parent for parent in path.parents if parent.exists()), path.parent)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(
            f"{path}: nothing can be written in {parent}", hint="name another folder, or change who may write there"
        )


def check_depth(path: Path) -> None:
    """Raise OutputError for a path of more folders than anybody makes, which cannot be made one in the other."""
    if len(path.parts) > DEEPEST:
        raise OutputError(f"{path}: has {len(path.parts)} parts, at most {DEEPEST} are made")


DEEPEST = 300
AT_FDCWD = -100
RENAME_EXCHANGE = 2  # linux/fs.h
RENAME_SWAP = 2  # sys/stdio.h of macOS


def take_place(new: Path, place: Path) -> Path | None:
    """Give the folder `new` the name `place`. Returns the new path of the folder that had the name, or None.

    Raises OSError if the file system refuses. Then, and if the process is killed at any moment, either the old folder
    or the complete new one has the name, or `finish_begun` gives it to the new one.
    """
    with finishing():
        if not os.path.lexists(place):
            new.rename(place)
            flush(place.parent)
            return None
        if _exchange_at_once(os.fsencode(new), os.fsencode(place)):
            flush(place.parent)
            return new
        return _take_place_in_steps(new, place)


def _take_place_in_steps(new: Path, place: Path) -> Path:
    """Do what `take_place` does by three renames. The name `.new` marks a folder that is complete."""
    whole, old = aside(place, "new"), aside(place, "old")
    new.rename(whole)
    flush(place.parent)
    try:
        place.rename(old)
        flush(place.parent)
        whole.rename(place)
    except OSError:  # `place` may be where a disk is mounted
        if os.path.lexists(old):
            old.rename(place)
        remove(whole)
        raise
    flush(place.parent)
    return old


def waiting_for(place: Path) -> list[Path]:
    """Return the complete folders that killed processes were about to give this name, the new one first."""
    left = left_by_others(place)
    return [one for ending in (".new", ".old") for one in left if one.suffix == ending]


def finish_begun(place: Path) -> None:
    """Finish what a killed process had begun to put at `place`, and remove what it left.

    Only the holder of the lock of `place` may call this.
    """
    left = left_by_others(place)
    if not os.path.lexists(place) and (waiting := waiting_for(place)):
        with contextlib.suppress(OSError):
            waiting[0].rename(place)
            flush(place.parent)
    for one in left:
        if one.suffix != ".old" or os.path.lexists(place):
            remove(one)


def _exchange_at_once(one: bytes, other: bytes) -> bool:
    """Exchange two names in one step: renameat2 on Linux, renamex_np on macOS. Returns whether that worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform.startswith("linux") and hasattr(libc, "renameat2"):
        return bool(libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0)
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        return bool(libc.renamex_np(one, other, RENAME_SWAP) == 0)
    return False
