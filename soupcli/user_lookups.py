"""What the user's code has asked for without opening it: whether files are there, variables, installed packages.

Python announces no `os.stat` and no `os.environ[...]` to audit hooks, so both are wrapped once a function of the user's
is loaded. Code that goes another way if a file is missing is evaluated again as soon as the file appears.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from opcode import opmap
from pathlib import Path
from types import FrameType
from typing import Any

from soupcli.environment import is_of_the_session
from soupcli.files.manifest import EVERY
from soupcli.files.reading import read_small
from soupcli.user_files import (
    MOST,
    imported_names,
    is_written_now,
    named_variables,
    opened_to_write,
    read_modules,
    scanned_files,
    users_caller,
    written_files,
)
from soupcli.user_modules import MAX_SOURCE, OWN, SYSTEM, is_library, is_users

FOR_ITER = opmap["FOR_ITER"]
ASKING = ("stat", "lstat", "access", "readlink")
# Functions of Python's library that ask whether something is there and what it is, or where a link leads.
WHETHER = {"exists", "lexists", "isfile", "isdir", "islink", "ismount", "is_file", "is_dir", "is_symlink", "samefile"}
WHETHER |= {"realpath", "_joinrealpath", "resolve", "readlink", "checkcache", "updatecache", "which", "_access_check"}
STANDARD = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - compared with names of frames

_asked: dict[str, set[str]] = {}  # absolute path -> files of the user's that asked for it
_stated: dict[str, set[str]] = {}  # those of whose size, times or mode they may have made use
_variables: dict[str, set[str]] = {}  # name of a variable -> the same
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


def asked_files() -> set[Path]:
    """Files and folders for which loaded modules of the user's have asked, but for those that this run has written."""
    modules, written = read_modules(), set(map(str, written_files()))
    asked = [path for path, asking in list(_asked.items()) if asking & modules and path not in written]
    return {Path(path) for path in asked if not is_written_now(path)}


def stated_files() -> set[Path]:
    """Those of which loaded modules of the user's may have looked at size, times or mode themselves."""
    modules, written = read_modules(), opened_to_write()
    stated = [*scanned_files(modules), *(path for path, asking in list(_stated.items()) if asking & modules)]
    return {Path(path) for path in stated if path not in written and not is_written_now(path)}


def asked_variables() -> list[str]:
    """Names of environment variables that loaded modules of the user's have read, or that texts in them may be."""
    modules = read_modules()
    read = {name for name, asking in list(_variables.items()) if asking & modules}
    return sorted(read.union(named_variables()))


def used_packages() -> list[str]:
    """Names of the installed distributions that the user's modules import, directly or through each other."""
    modules = read_modules()
    if not modules:
        return []
    names = {name.partition(".")[0] for name in imported_names()} | {one for file in modules for one in _imports(file)}
    found = {name for name in names if is_library(_file_of(name)) and name not in sys.stdlib_module_names}
    distributions = _distributions() if found else {}
    return sorted({one for name in found for one in distributions.get(name, [])})


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _file_of(name: str) -> str:
    file = getattr(sys.modules.get(name), "__file__", None)
    return file if isinstance(file, str) else ""


@functools.cache
def _imports(file: str) -> frozenset[str]:
    """The first names of what a module imports."""
    try:
        tree = ast.parse(read_small(Path(file), most=MAX_SOURCE))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return frozenset()
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    return frozenset(name.partition(".")[0] for name in names)


def _telling(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of os, which first says what it is asked for."""

    @functools.wraps(function)
    def told(path: Any, *rest: Any, **named: Any) -> Any:
        if not isinstance(path, int) and named.get("dir_fd") is None:
            _note(path, sys._getframe(1), whole=function.__name__ != "readlink")
        return function(path, *rest, **named)

    for family in (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks):
        if function in family:
            family.add(told)
    return told


def _note(path: Any, frame: FrameType, *, whole: bool) -> None:
    """Remembers that a path was asked for, if it was by the user's code; it must not raise."""
    try:
        module = users_caller(frame)
        if not module or len(_asked) >= MOST:
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links stay, they may lead elsewhere next time
        if not name.startswith((OWN, *SYSTEM)) and not is_library(name) and not name.endswith((".pyc", os.sep)):
            _asked.setdefault(name, set()).add(module)
            if whole and _is_of_users_own(frame):
                _stated.setdefault(name, set()).add(module)
    except Exception:  # noqa: BLE001 - an error here would be one of the user's code
        return


def _is_of_users_own(frame: FrameType | None) -> bool:
    """Whether the user's own function gets the answer, itself or through one such as os.path.getmtime."""
    while frame is not None and _is_standard(frame.f_code.co_filename):
        if frame.f_code.co_name in WHETHER:
            return False
        frame = frame.f_back
    return frame is not None and is_users(frame.f_code.co_filename)


def _of_variable(function: Callable[..., Any]) -> Callable[..., Any]:
    def read(self: Any, name: Any) -> Any:
        frame = _asking(sys._getframe(1))
        if frame is not None and _place(frame) != getattr(_copied, "place", None):
            _count(frame, os.fsdecode(name) if isinstance(name, str | bytes) else "")
        return function(self, name)

    return read


def _of_all(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of `dict(os.environ)` nothing counts: it is a copy for another process. Of a loop every variable does."""

    def names(self: Any) -> Any:
        frame = _asking(sys._getframe(1))
        is_loop = frame is not None and frame.f_code.co_code[frame.f_lasti] == FOR_ITER
        _copied.place = _place(frame) if frame is not None and not is_loop else None
        if frame is not None and is_loop:
            _count(frame, EVERY)
        return function(self)

    return names


def _count(frame: FrameType, name: str) -> None:
    file = frame.f_code.co_filename
    if is_users(file) and not file.startswith(OWN) and not is_of_the_session(name):
        _variables.setdefault(name, set()).add(file)


def _place(frame: FrameType) -> tuple[int, int, int]:
    return id(frame), id(frame.f_code), frame.f_lasti


def _asking(frame: FrameType | None) -> FrameType | None:
    """The nearest function that is not in Python's own library."""
    while frame is not None and _is_standard(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _is_standard(file: str) -> bool:
    return file.startswith("<") or (file.startswith(STANDARD) and "-packages" not in file)
