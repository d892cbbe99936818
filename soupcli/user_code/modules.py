"""The user's own Python modules: recognised by their file, compiled from text, and run again after a change."""

from __future__ import annotations

import ast
import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from importlib.machinery import SourceFileLoader
from operator import is_
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, NamedTuple

from soupcli.files.small_file import read_small
from soupcli.user_code import notes

# Compared with names of frames.
OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH100, PTH120
STANDARD = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - compared with names of frames
OF_PACKAGES = ("site-packages", "dist-packages")
SYSTEM = ("/proc/", "/sys/", "/dev/")
MAX_SOURCE = 10_000_000  # bytes of a file of Python
MOST_TEXTS, LONGEST_NAME = 1_000, 256


class UserModule(NamedTuple):
    """A loaded module of the user's."""

    name: str
    file: str
    real_path: str  # when it was first seen: what a link led to as the module ran


sources: dict[str, str] = {}  # file of a module of the user's -> SHA-256 of the text that was run
_read: set[tuple[str, str]] = set()  # names and real paths of modules that SourceLoader has read
_others: dict[str, ModuleType] = {}  # name -> module, of those known to be Python's, a package's or this program's
_users: dict[str, tuple[ModuleType, UserModule]] = {}  # of those known to be the user's, by name
_looked_at: tuple[tuple[str, ...], tuple[ModuleType, ...]] = (), ()  # names and modules, when they were last looked at


@cache
def libraries() -> tuple[str, ...]:
    """Return the folders of Python and of installed packages, also of those that PYTHONPATH or a .pth file shares."""
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    folders |= {entry for entry in sys.path if os.path.basename(entry) in OF_PACKAGES}  # noqa: PTH119 - a text
    return tuple(sorted({os.path.realpath(folder) + os.sep for folder in folders} | {f + os.sep for f in folders}))


def is_library(file: str) -> bool:
    """Whether it is a file of Python itself or of an installed package."""
    return file.startswith(libraries())


@cache
def is_users(file: str) -> bool:
    """Whether the file of a module or function is the user's own."""
    if file.startswith("<") or not file:
        return False
    return not file.startswith((OWN, *libraries(), *SYSTEM)) and not os.path.realpath(file).startswith(libraries())


def is_standard(file: str) -> bool:
    """Whether it is a file of Python's own library."""
    return file.startswith("<") or (file.startswith(STANDARD) and "-packages" not in file)


def asking(frame: FrameType | None) -> FrameType | None:
    """Return the nearest function that is not in Python's own library."""
    while frame is not None and is_standard(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


class SourceLoader(SourceFileLoader):
    """Compiles a module of the user's from its text.

    Bytecode that was kept beside it is not used: Python takes it for the text's if size and time agree.
    """

    def get_code(self, fullname: str) -> CodeType:
        """See importlib.abc.InspectLoader."""
        path = self.get_filename(fullname)
        text = self.get_data(path)
        sources[os.path.realpath(path)] = hashlib.sha256(text).hexdigest()
        _read.add((fullname, os.path.realpath(path)))
        return self.source_to_code(text, path)


class Seekers:
    """Notes who looks for a module, and leaves it to Python to find it."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG004
        _note_seeker(name, sys._getframe(1))


def _note_seeker(name: str, frame: FrameType | None) -> None:
    """Note that the user's code itself looks for a module: another one may be found first next time."""
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame is not None and is_users(frame.f_code.co_filename):
        notes.add("sought", frame.f_code.co_filename, name)


def is_read_here(module: UserModule) -> bool:
    """Whether SourceLoader has read this module of the user's, so that the text that was run is known."""
    return (module.name, module.real_path) in _read


def forgotten() -> bool:
    """Forget all of the user's modules if the file of one has changed, so that they are run again when imported.

    Returns whether it did.
    """
    changed = any(_content(path) != sources[path] for _, path in _read)
    if changed:
        forget()
    return changed


def forget() -> None:
    """Forget all of the user's modules, so that they are run again when imported."""
    for name, path in _read:
        file = stated_in(sys.modules.get(name), "__file__")
        if isinstance(file, str) and os.path.realpath(file) == path:
            del sys.modules[name]
    _read.clear()
    sources.clear()


def _content(path: str) -> str | None:
    try:
        return hashlib.sha256(read_small(Path(path), most=MAX_SOURCE)).hexdigest()
    except OSError:
        return None


def user_modules() -> list[UserModule]:
    """Return the user's loaded modules.

    Thousands of modules are loaded and this is asked for with every score, so each is looked at once.
    """
    global _looked_at
    loaded = tuple(sys.modules), tuple(sys.modules.values())
    if loaded != _looked_at:  # compares identities, and is several times as fast as looking each name up
        _look_at_others()
        _looked_at = loaded
    return [found for _, found in _users.values()]


def _look_at_others() -> None:
    """Look at the modules that were not there before, and forget those that are gone."""
    if not all(map(is_, map(sys.modules.get, _others), _others.values())):
        _others.clear()
    for name in [name for name, (module, _) in _users.items() if sys.modules.get(name) is not module]:
        del _users[name]
    for name in set(sys.modules).difference(_others, _users):
        module = sys.modules.get(name)
        file = stated_in(module, "__file__")
        if module is None:
            continue
        if not isinstance(file, str) or not file.startswith(os.sep) or file.startswith(OWN) or not is_users(file):
            _others[name] = module
        elif file.endswith((".py", ".so", ".pyd", ".pyc")):
            _users[name] = (module, UserModule(name, file, os.path.realpath(file)))


def stated_in(module: object, name: str) -> Any:
    """Return what a module states under a name, or None. Asked in the usual way, a lazy module would import another."""
    try:
        return object.__getattribute__(module, "__dict__").get(name)
    except AttributeError:
        return None


@cache
def texts_of(module: str, _source: str) -> tuple[str, ...]:
    """The short texts in a module that may be names of files; asked again if its `_source` is another one."""
    try:
        tree = ast.parse(read_small(Path(module), most=MAX_SOURCE))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return ()
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts = [text for text in dict.fromkeys(found) if 0 < len(text) < LONGEST_NAME and not set("\n\0") & set(text)]
    return tuple(texts[:MOST_TEXTS])
