"""Which files compiled libraries open for the user's code. Python does not tell these openings to audit hooks.

    watch(["/home/me/project"])            # from here on, in these folders and those below them
    opened()                               # {"/home/me/project/data/a.parquet"}

Linux tells a process of its own openings (fanotify(7), since 5.13 without special rights). Elsewhere, and where a
container forbids it, nothing is found. Of what other processes open it does not say whose they are, so only those of
this one count. What Python has told itself is left out: see hooks.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

MOST_FOLDERS = 1000  # are watched, those nearest to the first ones
MOST_TOLD = 1000  # openings by Python until the system's queue is emptied: it holds 16,384
MOST_FOUND = 10_000
# linux/fanotify.h
NEW_GROUP = 0x1 | 0x2 | 0x400 | 0x800  # close on exec, do not wait, report folder and name
ADD, OPENED, OF_CHILDREN = 0x1, 0x20, 0x0800_0000
EVENT, HANDLE = struct.Struct("=IBBHQii"), struct.Struct("=BBHQIi")
START = struct.Struct("=Ii")  # of a handle: its size and kind
NAMED = 2  # the kind of a record with a folder's handle and a name
BUFFER, LONGEST_HANDLE = 1 << 16, 128
AT_FDCWD = -100


class _Group(NamedTuple):
    """What the system reports to, the process that may read it, and the watched folders by their handles."""

    descriptor: int
    owner: int
    folders: dict[tuple[int, bytes], str]


_group: list[_Group] = []
_roots: set[str] = set()
_passed: set[str] = set()
_told: list[set[str]] = [set(), set()]  # what Python has opened: since the queue was emptied, and before that
_found: set[str] = set()


def watch(folders: Iterable[str]) -> None:
    """Begin to watch these folders and those below them, but for hidden ones."""
    roots = [root for root in dict.fromkeys(map(os.path.realpath, folders)) if root not in _roots]
    if not roots or not sys.platform.startswith("linux"):
        return
    _roots.update(roots)
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if not _group:
        with contextlib.suppress(AttributeError):  # a C library without it
            descriptor = libc.fanotify_init(NEW_GROUP, os.O_RDONLY)
            if descriptor >= 0:
                _group.append(_Group(descriptor, os.getpid(), {}))
    for group in _group:
        watched = set(group.folders.values())
        for folder in (folder for root in roots for folder in _below(root)):
            if folder not in watched and not _mark(libc, group, os.fsencode(folder), folder):
                return  # it goes through no folders of a file system that tells nothing, such as NFS
            if len(group.folders) >= MOST_FOLDERS:
                return


def told(path: object) -> None:
    """Note that Python tells of an opening itself. It must not raise."""
    if not _group or not isinstance(path, str | bytes | os.PathLike):
        return
    with contextlib.suppress(OSError, ValueError):
        _told[0].add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - links stay until they are asked for
        if len(_told[0]) >= MOST_TOLD:
            _collect()


def pass_over(files: Iterable[Path]) -> None:
    """Leave out these files, which keys know by themselves: libraries open tokenizers for this program too."""
    if _group:
        _passed.update(map(os.path.realpath, files))


def opened() -> set[str]:
    """Return the files that were opened so far, but for those that Python has told of."""
    _collect()
    return _found - _passed


def _below(root: str) -> Iterator[str]:
    """Yield a folder and those below it, the nearest first. A folder is listed after it was yielded."""
    folders = [root]
    while folders:
        yield from folders
        found: list[str] = []
        for folder in folders[:MOST_FOLDERS]:
            with contextlib.suppress(OSError):
                entries = [entry for entry in os.scandir(folder) if not entry.name.startswith((".", "__pycache__"))]
                found += sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        folders = found[:MOST_FOLDERS]


def _mark(libc: Any, group: _Group, name: bytes, folder: str) -> bool:
    """Watch a folder. Returns whether the system does."""
    handle, mount = ctypes.create_string_buffer(START.size + LONGEST_HANDLE), ctypes.c_int()
    START.pack_into(handle, 0, LONGEST_HANDLE, 0)
    if libc.name_to_handle_at(AT_FDCWD, name, handle, ctypes.byref(mount), 0):
        return False
    size, kind = START.unpack_from(handle)
    events = ctypes.c_uint64(OPENED | OF_CHILDREN)
    if libc.fanotify_mark(group.descriptor, ADD, events, AT_FDCWD, name):
        return False
    group.folders[kind, handle.raw[START.size : START.size + size]] = folder
    return True


def _collect() -> None:
    """Empty the system's queue, and keep what Python has not told of."""
    for group in _group:
        if group.owner != os.getpid():
            return  # a forked process would take the events of its parent
        paths = set(_events(group)).difference(*_told) - _found
        known = {os.path.realpath(path) for path in [*_told[0], *_told[1]]} if paths else set()
        _found.update(sorted(paths - known)[: MOST_FOUND - len(_found)])
        _told[:] = set(), _told[0]


def _events(group: _Group) -> Iterator[str]:
    """Yield the paths of the openings by this process in the system's queue."""
    while True:
        try:
            data = os.read(group.descriptor, BUFFER)
        except OSError:  # there are no more
            return
        start = 0
        while start + EVENT.size <= len(data):
            size, _, _, head, _, _, process = EVENT.unpack_from(data, start)
            if process == group.owner:
                yield from _names(group, data[start + head : start + size])
            start += max(size, EVENT.size)


def _names(group: _Group, records: bytes) -> Iterator[str]:
    if len(records) < HANDLE.size or records[0] != NAMED:
        return  # such as that the queue ran over
    _, _, size, _, length, kind = HANDLE.unpack_from(records)
    end = HANDLE.size + length
    folder = group.folders.get((kind, records[HANDLE.size : end]))
    name = records[end:size].partition(b"\0")[0]
    if folder is not None and name not in (b"", b"."):
        yield os.path.join(folder, os.fsdecode(name))  # noqa: PTH118
