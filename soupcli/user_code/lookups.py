"""What the user's code has asked for without opening it: whether files are there, and variables.

Python announces no `os.stat` and no `os.environ[...]` to audit hooks, so both are wrapped once a function of the user's
is loaded. Code that goes another way if a file is missing is evaluated again as soon as the file appears.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from opcode import opmap
from pathlib import Path
from types import FrameType
from typing import Any

from soupcli.environment import EVERY, SEARCHED, is_of_the_session
from soupcli.user_code import notes
from soupcli.user_code.events import place_of
from soupcli.user_code.files import (
    is_written_now,
    named_variables,
    opened_to_write,
    read_modules,
    scanned_files,
    written_files,
)
from soupcli.user_code.hooks import note_run, passing_on, remember, users_caller
from soupcli.user_code.modules import OWN, SYSTEM, asking, is_library, is_standard, is_users, stated_in
from soupcli.user_code.packages import file_of, imports_of

LANGUAGE = {"LANG", "LANGUAGE", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MONETARY", "LC_NUMERIC", "LC_TIME"}
FOR_ITER = opmap["FOR_ITER"]
ASKING = ("stat", "lstat", "fstat", "access", "readlink", "open")
# Functions of Python's library that ask whether something is there and what it is, or where a link leads.
WHETHER = {"exists", "lexists", "isfile", "isdir", "islink", "ismount", "is_file", "is_dir", "is_symlink"}
WHETHER |= {"realpath", "_joinrealpath", "resolve", "readlink", "checkcache", "updatecache", "which", "_access_check"}

_copied = threading.local()  # the place in the user's code that copies all variables
_installed = threading.Event()


def watch() -> None:
    """From here on what the user's code asks for is remembered."""
    if _installed.is_set():
        return
    _installed.set()
    for name in ASKING:
        setattr(os, name, _telling(getattr(os, name)))
    variables: Any = type(os.environ)
    variables.__getitem__ = _of_variable(variables.__getitem__)
    variables.__iter__ = _of_all(variables.__iter__)
    variables.__len__ = _of_number(variables.__len__)
    variables.values = _of_values(variables.values)


def asked_files() -> set[Path]:
    """Files and folders for which loaded modules of the user's have asked, but for those that they have written."""
    asked = notes.of("asked", read_modules()).union(_places_of_modules())
    return {Path(path) for path in asked - set(map(str, written_files()))}


def stated_files() -> set[Path]:
    """Those of which loaded modules of the user's may have looked at size, times or mode themselves."""
    modules, written = read_modules(), opened_to_write()
    stated = {*scanned_files(modules), *notes.of("stated", modules)}
    return {Path(path) for path in stated if path not in written and not is_written_now(path)}


def asked_variables() -> list[str]:
    """Names of environment variables that loaded modules of the user's have read, or that texts in them may be.

    The time zone, which nobody reads by name, counts for all code, and so does where the modules are that it looks for.
    The language counts for code that imports `locale`.
    """
    modules = read_modules()
    tops = {name.partition(".")[0] for name in notes.of("sought", modules)}
    tops = tops.union(*map(imports_of, modules))
    always = {"TZ", *(f"{SEARCHED}{name}" for name in tops - sys.stdlib_module_names - {""})} if modules else set()
    always |= LANGUAGE if "locale" in tops else set()
    return sorted(always.union(notes.of("variable", modules), named_variables()))


def _places_of_modules() -> Iterator[str]:
    """Yield where a module that the user's code imports would be found first, if somebody put a file there.

    These are places in folders of the user's, before the one where it is, or all of them if it is not installed.
    """
    for name in notes.of("sought", read_modules()):
        parent, _, last = name.rpartition(".")
        found = file_of(name)
        places = (stated_in(sys.modules.get(parent), "__path__") or ()) if parent else sys.path
        for folder in map(os.path.abspath, places):
            if is_users(folder) and not folder.startswith(SYSTEM):
                yield from (os.path.join(folder, last, "__init__.py"), os.path.join(folder, f"{last}.py"))  # noqa: PTH118
            if found and found.startswith(folder + os.sep):
                break


def _telling(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of os, which first says what it is asked for."""

    @functools.wraps(function)
    def told(*given: Any, **named: Any) -> Any:
        passing_on.add(sys._getframe().f_code)
        folder = named.get("dir_fd")
        if function.__name__ != "open" or folder is not None:  # others are told to audit hooks
            path = given[0] if given else named.get("path", named.get("fd"))
            _note(path, sys._getframe(1), function.__name__, folder)
        return function(*given, **named)

    told.__module__ = "os"  # where pickles find it
    for family in (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks):
        if function in family:
            family.add(told)
    return told


def _note(path: Any, frame: FrameType, question: str, folder: int | None) -> None:
    """Note that a path was asked for, or opened in the folder of a descriptor, if it was by the user's code.

    It must not raise.
    """
    try:
        module = users_caller(frame)
        if not module:
            return
        given = place_of(path) if isinstance(path, int) else os.fsdecode(path)
        if given is None:
            return
        within = None if folder is None else place_of(folder)
        name = os.path.abspath(os.path.join(within or "", given))  # noqa: PTH100, PTH118 - links stay
        if name.startswith((OWN, *SYSTEM)) or is_library(name) or name.endswith((".pyc", os.sep)):
            return
        if question == "open":
            remember(module, name)
        else:
            note_run(module, frame)
            notes.add("asked", module, name)
            if question != "readlink" and _is_of_users_own(frame):
                notes.add("stated", module, name)
    except Exception:  # noqa: BLE001 - an error here would be one of the user's code
        return


def _is_of_users_own(frame: FrameType | None) -> bool:
    """Whether the user's own function gets the answer, itself or through one such as os.path.getmtime."""
    while frame is not None and is_standard(frame.f_code.co_filename):
        if frame.f_code.co_name in WHETHER:
            return False
        frame = frame.f_back
    return frame is not None and is_users(frame.f_code.co_filename)


def _of_variable(function: Callable[..., Any]) -> Callable[..., Any]:
    def read(self: Any, name: Any) -> Any:
        frame = asking(sys._getframe(1))
        if frame is not None and _place(frame) != getattr(_copied, "place", None):
            _count(frame, os.fsdecode(name) if isinstance(name, str | bytes) else "")
        return function(self, name)

    return read


def _of_all(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of a loop every variable counts. Of `dict(os.environ)`, often a copy for a process, those that texts name."""

    def names(self: Any) -> Any:
        frame = asking(sys._getframe(1))
        is_loop = frame is not None and frame.f_code.co_code[frame.f_lasti] == FOR_ITER
        _copied.place = _place(frame) if frame is not None and not is_loop else None
        if frame is not None:
            _count(frame, EVERY, "variable" if is_loop else "copied")
        return function(self)

    return names


def _of_number(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of their number every variable counts. Python's library asks for it as it copies them: that is no question."""

    def number(self: Any) -> Any:
        frame = sys._getframe(1)
        if not is_standard(frame.f_code.co_filename):
            _count(frame, EVERY)
        return function(self)

    return number


def _of_values(function: Callable[..., Any]) -> Callable[..., Any]:
    def values(self: Any) -> Any:
        frame = asking(sys._getframe(1))
        if frame is not None:
            for name in self:
                _count(frame, name)
        return function(self)

    return values


def _count(frame: FrameType, name: str, kind: str = "variable") -> None:
    file = frame.f_code.co_filename
    if is_users(file) and not file.startswith(OWN) and not is_of_the_session(name):
        note_run(file, frame)
        notes.add(kind, file, file if kind == "copied" else name)


def _place(frame: FrameType) -> tuple[int, int, int]:
    return id(frame), id(frame.f_code), frame.f_lasti
