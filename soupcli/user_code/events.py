"""The paths and words in the events that Python tells to audit hooks (PEP 578)."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
LISTINGS = ("os.listdir", "os.scandir")
ATTRIBUTES = ("os.getxattr", "os.listxattr")
DATABASE = "sqlite3.connect"  # to read and change
# The place of the path among an event's arguments.
ARGUMENTS = dict.fromkeys(("open", *LISTINGS, *ATTRIBUTES, DATABASE, "os.system", "ctypes.dlopen"), 0)
ARGUMENTS["os.rename"] = 1  # the new name
EVENTS = {*ARGUMENTS, *STARTING, "import"}
OF_SHELL = re.compile(r"[\s'\"|&;<>()$`=]+")  # what is between the words of a command


def paths_of(event: str, arguments: tuple[Any, ...]) -> Iterator[str]:
    """Yield the absolute paths that an event names."""
    for word in words_of(event, arguments) if event in STARTING else [arguments[ARGUMENTS[event]]]:
        path = "." if word is None and event != "open" else word
        if isinstance(path, int) and event != "open":
            path = place_of(path)
        if isinstance(path, str | bytes | os.PathLike):
            name = os.fsdecode(path)
            if event == DATABASE and name.startswith("file:"):
                name = unquote(urlsplit(name).path)
            if event not in STARTING or os.path.isfile(name):  # noqa: PTH113
                yield os.path.abspath(name)  # noqa: PTH100 - links stay, they may lead elsewhere next time


def place_of(descriptor: int) -> str | None:
    """Return the path of an open file or folder, or None if the system does not tell it."""
    with contextlib.suppress(OSError):
        found = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        return found if found.startswith(os.sep) else None
    return None


def state_of(path: str) -> str:
    """Return the size, times and identity of a regular file as one word; "" if there is none.

    The time of modification can be put back after a change, the time of change cannot.
    """
    with contextlib.suppress(OSError, ValueError):
        found = os.stat(path)  # noqa: PTH116
        if stat.S_ISREG(found.st_mode):
            return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_dev}-{found.st_ino}"
    return ""


def words_of(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Return the words of a command and what a shell takes apart in them, below the folder that it runs in."""
    place = arguments[2] if event == "subprocess.Popen" else None
    found = [name for word in _given(event, arguments) for name in (word, *OF_SHELL.split(word))]
    return found if place is None else [os.path.join(os.fsdecode(place), name) for name in found]  # noqa: PTH118


def started(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Return the words that an event starts a program with, the shell's for what a shell runs."""
    return ["sh", "-c", *_given(event, arguments)] if event == "os.system" else _given(event, arguments)


def _given(event: str, arguments: tuple[Any, ...]) -> list[str]:
    words = arguments[0] if event == "os.system" else arguments[1]
    return [os.fsdecode(word) for word in ([words] if isinstance(words, str | bytes | os.PathLike) else words)]


def is_writing(mode: Any = None, flags: Any = None) -> bool:
    """Whether a file is opened for writing, so that nothing that was in it can be read."""
    if isinstance(mode, str):
        return any(letter in mode for letter in "wx") or ("a" in mode and "+" not in mode)
    return isinstance(flags, int) and (flags & os.O_ACCMODE == os.O_WRONLY or bool(flags & os.O_TRUNC))


def is_only_read(mode: Any = None, flags: Any = None) -> bool:
    """Whether a file is opened for nothing but reading."""
    if isinstance(mode, str):
        return not any(letter in mode for letter in "wax+")
    return not isinstance(flags, int) or flags & os.O_ACCMODE == os.O_RDONLY
