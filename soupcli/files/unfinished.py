"""Temporary files and folders, named so that the next run can remove what a killed process left.

    with unfinished(aside(path)) as place:
        ...                                    # write `place`, then rename it; whatever is left of it is removed

The name tells process and machine. What a killed process left is removed by whoever makes the same thing again. The
process is named by its number and the time of its start: numbers come again, above all in containers.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

DAY = 86_400.0  # seconds; what another machine left is removed when it is older


def _machine() -> str:
    """Return the name of this machine, and of the container if its processes are numbered by themselves."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - no path of a file
    return socket.gethostname()


_HOST = hashlib.sha256(_machine().encode()).hexdigest()[:8]
_NAME = re.compile(r"(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-(?P<start>\d+)-\d+\.(?:tmp|new|old)")
_numbers = count()
_places: set[Path] = set()
_kept = threading.RLock()


def aside(path: Path, ending: str = "tmp") -> Path:
    """Return a name beside `path` that no other process or call uses."""
    pid = os.getpid()
    return path.with_name(f".{path.name}.{pid}-{_HOST}-{_own_start(pid)}-{next(_numbers)}.{ending}")


def left_by_others(path: Path) -> list[Path]:
    """Return what has names of `aside(path)` and was not made by this process."""
    start = f".{path.name}."
    try:
        entries = [entry for entry in os.scandir(path.parent) if entry.name.startswith(start)]
    except OSError:
        return []
    names = [entry.name for entry in entries if _NAME.fullmatch(entry.name[len(start) :])]
    return [place for name in sorted(names) if (place := path.parent / name) not in _places]


def remove_abandoned(path: Path) -> None:
    """Remove what ended processes left beside `path`."""
    for place in left_by_others(path):
        if _abandoned(place):
            remove(place)


def _abandoned(place: Path) -> bool:
    named = _NAME.search(place.name)
    if named is not None and named["host"] == _HOST:
        pid = int(named["pid"])
        return not is_running(pid) or _start_of(pid) not in (0, int(named["start"]))
    try:
        return time.time() - place.stat().st_mtime > DAY
    except OSError:
        return False


def _start_of(pid: int) -> int:
    """Return when a process was started, in ticks since the machine was; 0 if the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19])  # the 22nd of proc_pid_stat(5): two stand before
    except (OSError, ValueError, IndexError):
        return 0


_own_start = functools.cache(_start_of)


def is_running(pid: int) -> bool:
    """Whether a process with this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def remove(place: Path) -> None:
    """Remove a file or folder, as far as possible."""
    if place.is_dir() and not place.is_symlink():
        with contextlib.suppress(OSError):
            place.chmod(0o700)  # a folder that was replaced may have been read-only
        shutil.rmtree(place, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            place.unlink()


@contextmanager
def unfinished(place: Path) -> Iterator[Path]:
    """Yield the name for the block. Whatever still has it at the end, even after an error, is removed."""
    _places.add(place)
    try:
        yield place
    finally:
        remove(place)
        _places.discard(place)


@contextmanager
def scratch_folder(beside: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder that is removed at the end, by default a temporary one.

    Those of killed processes are removed first.
    """
    path = _temporary("soup") if beside is None else beside
    remove_abandoned(path)
    with unfinished(aside(path)) as place:
        place.mkdir(mode=0o700)
        yield place


def folder_of_process(name: str) -> Path:
    """Make an empty temporary folder that is removed when this process ends. Raises OSError.

    Those of killed processes are removed first.
    """
    path, owner = _temporary(name), os.getpid()
    remove_abandoned(path)
    place = aside(path)
    place.mkdir(mode=0o700)
    _places.add(place)

    def end() -> None:
        if os.getpid() == owner:  # and not a process that was forked
            remove(place)

    atexit.register(end)
    return place


def nameless_file() -> int:
    """Return the descriptor of an empty temporary file without a name, which ends with it. Raises OSError."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _temporary(name: str) -> Path:
    return Path(tempfile.gettempdir()) / name


@contextmanager
def finishing() -> Iterator[None]:
    """Mark the block in which names are exchanged. `remove_all` waits for its end."""
    with _kept:
        yield


def remove_all(patience: float) -> None:
    """Remove everything unfinished before another thread ends this process, and let nothing finish afterwards.

    Waits at most `patience` seconds for what is being finished.
    """
    if _kept.acquire(timeout=patience):  # and never given back
        for place in list(_places):
            remove(place)
