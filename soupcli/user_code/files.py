"""Which files the user's code has read: modules that it imported, and files that it opened, listed or names.

Files of Python itself and of installed packages are left out: versions stand for them. Not every opening is heard (see
hooks.py): so every file counts that a text in a module of the user's names. `depends:` in the recipe names the
rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from soupcli.environment import is_of_the_session
from soupcli.user_code import notes, openings
from soupcli.user_code.events import state_of
from soupcli.user_code.hooks import is_watching
from soupcli.user_code.modules import SYSTEM, libraries, sources, texts_of, user_modules

VARIABLE, WORD = re.compile(r"[A-Z][A-Z0-9_]{2,}"), re.compile(r"[A-Za-z_]\w{1,63}")
_absolute = cache(os.path.abspath)  # of files of modules, which begin at the root
MOST_FOLDERS = 8

_named: set[str] = set()  # files that texts in the user's code name
moving: set[str] = set()  # those among them that have changed since the run began
_begun = [sys.maxsize]  # when the run did, in nanoseconds
_moment = threading.local()


def read_files() -> dict[Path, str | None]:
    """Return the user's loaded modules, and the files that they have opened or listed so far.

    Modules come with the SHA-256 of the text that was run, other files with None.

    These are the modules below the working folder, and those that the user's code has imported from elsewhere.
    """
    modules = read_modules()
    opened = notes.of("read", modules) - notes.every("made") - changed_by_code(modules)
    unheard = {path for path in openings.opened() - notes.every("written") if _stays(path)}
    found = {os.path.realpath(file) for file in modules} | opened | unheard | set(_named_by(modules))
    return {Path(path): sources.get(path) for path in sorted(found) if not path.startswith(libraries())}


def changed_by_code(modules: set[str]) -> set[str]:
    """Return the files that are others than when code of `modules` opened them to read and change."""
    opened = (word.partition(" ") for word in notes.of("opened for both", modules))
    return {path for state, _, path in opened if state_of(path) != state}


@contextlib.contextmanager
def one_moment() -> Iterator[None]:
    """Look for the user's loaded modules once for the whole block: thousands are loaded."""
    _moment.modules = read_modules()
    try:
        yield
    finally:
        del _moment.modules


def read_modules() -> set[str]:
    """Return the files of the user's loaded modules, and of code that they have run without making it a module."""
    if not is_watching():
        return set()
    if hasattr(_moment, "modules"):
        return set(_moment.modules)
    here = os.getcwd() + os.sep  # noqa: PTH109
    found = {
        one.file for one in user_modules() if notes.has("imported", one.name) or _absolute(one.file).startswith(here)
    }
    while further := notes.of("ran", found) - found:
        found |= further
    return found


def written_files() -> set[Path]:
    """Return the files that the user's code has opened for writing so far, and those that it only names."""
    return {Path(path) for path in notes.every("written") | (_named - notes.every("read"))}


def _named_by(modules: set[str]) -> Iterator[str]:
    """Yield the files that string constants in modules name, also in a folder that one names: read_table("x.parquet").

    What is changed in the run is left out: the user's code writes it.
    """
    here, written = os.getcwd(), notes.every("written")  # noqa: PTH109
    for module in sorted(modules):
        words = texts_of(module, sources.get(os.path.realpath(module), ""))
        for home in dict.fromkeys((here, os.path.dirname(module))):  # noqa: PTH120
            folders = [home, *(path for word in words if os.path.isdir(path := os.path.join(home, word)))]  # noqa: PTH112, PTH118
            for folder in folders[:MOST_FOLDERS]:
                for word in words:
                    path = os.path.abspath(os.path.join(folder, word))  # noqa: PTH100, PTH118
                    if path not in written and not path.startswith(SYSTEM) and _stays(path):
                        yield path


def named_variables() -> list[str]:
    """Names of environment variables that texts in the user's loaded modules may be: `os.environ["SPLIT"]`.

    Of a module that copies all variables any word counts, and so does any word of a command that is started.
    """
    modules = read_modules()
    copying = notes.of("copied", modules)
    found = set()
    for file in modules | copying:
        form = WORD if file in copying else VARIABLE
        found |= {word for word in texts_of(file, sources.get(os.path.realpath(file), "")) if form.fullmatch(word)}
    found |= {name for words in started_commands() for word in words for name in WORD.findall(word)}
    return sorted(word for word in found if not is_of_the_session(word))


def is_written_now(path: str) -> bool:
    """Whether it is a file that somebody has changed since this run began."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_ctime_ns >= _begun[0]


def opened_to_write() -> set[str]:
    """Return the files that the user's code has opened for writing so far."""
    return notes.every("written")


def scanned_files(modules: set[str]) -> Iterator[str]:
    """Yield the entries of folders that a function of `modules` goes through by os.scandir, which tells their sizes."""
    for folder in notes.of("scanned", modules):
        with contextlib.suppress(OSError):
            yield from (os.path.join(folder, name) for name in os.listdir(folder))  # noqa: PTH118, PTH208


def imported_names() -> set[str]:
    """Names of modules that the user's code has asked for."""
    return notes.every("imported")


def started_commands() -> list[list[str]]:
    """The words of commands that loaded modules of the user's have started."""
    return [json.loads(words) for words in sorted(notes.of("started", read_modules()))]


def _stays(path: str) -> bool:
    """Whether it is a regular file that nobody has changed since this run began, this process or another one."""
    if not os.path.isfile(path):  # noqa: PTH113
        return False
    stays = not is_written_now(path)
    (_named if stays else moving).add(path)
    return stays


def begin() -> None:
    """Note that a run begins. A file that changes from now on counts as written by it."""
    _named.clear()
    moving.clear()
    notes.forget_others()
    _begun[0] = time.time_ns()
