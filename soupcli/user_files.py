"""Which files the user's code has read: modules that it imported, and files that it opened or listed.

Python tells every opening of a file to audit hooks (PEP 578). An opening counts as the user's if a function of a file
of theirs is among its callers, nearer than any function of this program. Files of Python itself and of installed
packages are left out: versions stand for them. Libraries that open files outside of Python are not seen, but for
safetensors: so every file counts that a text in a module of the user's names. `depends:` in the recipe names the rest.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import stat
import sys
import tempfile
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from soupcli.environment import is_of_the_session
from soupcli.user_modules import OWN, SYSTEM, ModuleFinder, is_users, libraries, sources, texts_of, user_modules

MOST = 100_000  # files that are remembered; more are a sign of something else
ARGUMENTS = {"open": 0, "os.listdir": 0, "os.scandir": 0, "sqlite3.connect": 0, "os.system": 0}
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,}")
STARTING = ("subprocess.Popen", "os.system")
OF_SHELL = re.compile(r"[\s'\"|&;<>()$`=]+")  # what is between the words of a command
LISTINGS = ("os.listdir", "os.scandir")
IMPORTING = "<frozen importlib"
_absolute = cache(os.path.abspath)  # of files of modules, which begin at the root
EVENTS = {*ARGUMENTS, "subprocess.Popen", "import"}

MOST_FOLDERS = 8

_named: set[str] = set()  # files that texts in the user's code name
_begun = [sys.maxsize]  # when the run did, in nanoseconds
_read: defaultdict[str, set[str]] = defaultdict(set)  # file of the user's code -> absolute paths
_scanned: defaultdict[str, set[str]] = defaultdict(set)  # folder -> files of the user's that see each entry's size
_written: set[str] = set()
_imported: set[str] = set()  # names of modules that the user's code has asked for
_started: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)  # words of commands -> files that started them
_children: list[tuple[int, int]] = []  # this process, and a file in which those that it forks note what they read
_heard_bytes = [0]  # of that file
_watching = threading.Event()
_unheard: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_heard_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # of neither side, that have read something
_blocks: list[set[threading.Thread]] = []  # threads that are there when a block of `unheard` begins
_busy = threading.local()
_moment = threading.local()


def watch(module: str) -> None:
    """Begin to record the files that the user's code opens. `module` is the name of one of the user's modules."""
    _imported.add(module)
    if not _watching.is_set():
        _watching.set()
        with contextlib.suppress(OSError), tempfile.TemporaryFile() as noted:
            _children.append((os.getpid(), os.dup(noted.fileno())))
        sys.addaudithook(_heard)
        sys.meta_path.insert(0, ModuleFinder())
        _hear_safetensors()


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Record no reads within the block, and no reads of threads that begin there, even after it."""
    now, before = getattr(_busy, "now", False), set(threading.enumerate())
    _busy.now = True
    _blocks.append(before)
    try:
        yield
    finally:
        _unheard.update(set(threading.enumerate()) - before)
        _blocks.remove(before)
        _busy.now = now


def pass_over_threads() -> None:
    """Record no reads of threads that run already, such as those of a notebook.

    Threads that the user's code started in an earlier run, such as pools of workers, still count.
    """
    _unheard.update(set(threading.enumerate()) - {threading.current_thread()} - set(_heard_threads))


def _is_unheard(thread: threading.Thread) -> bool:
    """Whether the thread began in a block of `unheard`, which may still go on."""
    if thread not in _unheard and any(thread not in before for before in list(_blocks)):
        _unheard.add(thread)
    return thread in _unheard


def read_files() -> dict[Path, str | None]:
    """Return the user's loaded modules, and the files that they have opened or listed so far.

    Modules come with the SHA-256 of the text that was run, other files with None.

    These are the modules below the working folder, and those that the user's code has imported from elsewhere.
    """
    if not _watching.is_set():
        return {}
    _hear_children()
    modules = read_modules()
    opened = {path for module, paths in list(_read.items()) if module in modules or not module for path in paths}
    found = {os.path.realpath(file) for file in modules} | opened | set(_named_by(modules))
    return {Path(path): sources.get(path) for path in sorted(found) if not path.startswith(libraries())}


@contextlib.contextmanager
def one_moment() -> Iterator[None]:
    """Look for the user's loaded modules once for the whole block: thousands are loaded."""
    _moment.modules = read_modules()
    try:
        yield
    finally:
        del _moment.modules


def read_modules() -> set[str]:
    """Return the files of the user's loaded modules."""
    if not _watching.is_set():
        return set()
    if hasattr(_moment, "modules"):
        return set(_moment.modules)
    here = os.getcwd() + os.sep  # noqa: PTH109
    return {file for name, file in user_modules() if name in _imported or _absolute(file).startswith(here)}


def written_files() -> set[Path]:
    """Return the files that the user's code has opened for writing so far, and those that it only names."""
    opened = {path for paths in list(_read.values()) for path in paths}
    return {Path(path) for path in _written | (_named - opened)}


def _named_by(modules: set[str]) -> Iterator[str]:
    """Yield the files that string constants in modules name, also in a folder that one names: read_table("x.parquet").

    What is changed in the run is left out: the user's code writes it.
    """
    here = os.getcwd()  # noqa: PTH109
    for module in sorted(modules):
        words = texts_of(module, sources.get(os.path.realpath(module), ""))
        for home in dict.fromkeys((here, os.path.dirname(module))):  # noqa: PTH120
            folders = [home, *(path for word in words if os.path.isdir(path := os.path.join(home, word)))]  # noqa: PTH112, PTH118
            for folder in folders[:MOST_FOLDERS]:
                for word in words:
                    path = os.path.abspath(os.path.join(folder, word))  # noqa: PTH100, PTH118
                    if path not in _written and not path.startswith(SYSTEM) and _stays(path):
                        yield path


def named_variables() -> list[str]:
    """Names of environment variables that texts in the user's loaded modules may be: `os.environ["SPLIT"]`."""
    found = {word for file in read_modules() for word in texts_of(file, sources.get(os.path.realpath(file), ""))}
    return sorted(word for word in found if VARIABLE.fullmatch(word) and not is_of_the_session(word))


def is_written_now(path: str) -> bool:
    """Whether it is a file that somebody has changed since this run began."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_ctime_ns >= _begun[0]


def opened_to_write() -> set[str]:
    """Return the files that the user's code has opened for writing so far."""
    return set(_written)


def scanned_files(modules: set[str]) -> Iterator[str]:
    """Yield the entries of folders that a function of `modules` goes through by os.scandir, which tells their sizes."""
    for folder in [folder for folder, scanning in list(_scanned.items()) if scanning & modules]:
        with contextlib.suppress(OSError):
            yield from (os.path.join(folder, name) for name in os.listdir(folder))  # noqa: PTH118, PTH208


def imported_names() -> set[str]:
    """Names of modules that the user's code has asked for."""
    return set(_imported)


def started_commands() -> list[list[str]]:
    """The words of commands that loaded modules of the user's have started."""
    modules = read_modules()
    return [list(words) for words, starting in list(_started.items()) if starting & modules]


def _stays(path: str) -> bool:
    """Whether it is a regular file that nobody has changed since this run began, this process or another one."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    stays = stat.S_ISREG(found.st_mode) and found.st_ctime_ns < _begun[0]
    if stays:
        _named.add(path)
    return stays


def begin() -> None:
    """Note that a run begins. A file that changes from now on counts as written by it."""
    _named.clear()
    _begun[0] = time.time_ns()


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    """Handle one audited event of Python. It must not raise."""
    if event in EVENTS:
        _note(event, arguments, sys._getframe(1))


def _note(event: str, arguments: tuple[Any, ...], frame: FrameType) -> None:
    """Record the files of an event if the user's code caused it. `frame` is the function that did."""
    if (
        getattr(_busy, "now", False)
        or _is_unheard(threading.current_thread())
        or (event in LISTINGS and frame.f_code.co_filename.startswith(IMPORTING))
    ):
        return
    _busy.now = True
    try:
        module = users_caller(frame)
        if module and event == "import":
            _imported.add(str(arguments[0]))
        elif module is not None and event != "import" and _is_called_by_us(frame):
            if not module:
                _heard_threads.add(threading.current_thread())
            if event in STARTING and module:
                _started[tuple(_words_of(event, arguments))].add(module)
            for path in _paths_of(event, arguments):
                if event == "os.scandir" and is_users(frame.f_code.co_filename):
                    _scanned[path].add(frame.f_code.co_filename)
                _remember(module, path, is_written=event == "open" and _writes(*arguments[1:3]))
    except Exception:  # noqa: BLE001 - an error here would be one of the user's code
        return
    finally:
        _busy.now = False


def users_caller(frame: FrameType | None) -> str | None:
    """The file of the user's function that is nearest, None if this program is nearer; "" of a thread of neither."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(OWN):
            return None
        if is_users(file):
            return file
        frame = frame.f_back
    return ""


def _is_called_by_us(frame: FrameType | None) -> bool:
    """Whether a function of this program is among the callers, or the thread is not the main one.

    What a script or notebook around this program opens by itself says nothing of the scores.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith(OWN):
            return True
        frame = frame.f_back
    return threading.current_thread() is not threading.main_thread()


def _paths_of(event: str, arguments: tuple[Any, ...]) -> Iterator[str]:
    """Yield the absolute paths that an event names."""
    for word in _words_of(event, arguments) if event in STARTING else [arguments[ARGUMENTS[event]]]:
        path = "." if word is None and event != "open" else word
        if isinstance(path, str | bytes | os.PathLike):
            name = os.fsdecode(path)
            if event not in STARTING or os.path.isfile(name):  # noqa: PTH113
                yield os.path.abspath(name)  # noqa: PTH100 - links stay, they may lead elsewhere next time


def _words_of(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Return the words of a command and what a shell takes apart in them, below the folder that it runs in."""
    of_shell = event == "os.system"
    words, place = (arguments[0], None) if of_shell else (arguments[1], arguments[2])
    given = [words] if isinstance(words, str | bytes | os.PathLike) else words
    found = [name for word in given for name in (os.fsdecode(word), *OF_SHELL.split(os.fsdecode(word)))]
    return found if place is None else [os.path.join(os.fsdecode(place), name) for name in found]  # noqa: PTH118


def _writes(mode: Any = None, flags: Any = None) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax")
    return isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY


def _remember(module: str, path: str, *, is_written: bool) -> None:
    if path.startswith((OWN, *libraries(), *SYSTEM)) or path.endswith(".pyc") or len(_read[module]) >= MOST:
        return
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):  # noqa: PTH110, PTH112, PTH113
        return
    if path in _written or (not is_written and path in _read[module]):
        return
    _tell_parent(module, path, is_written=is_written)
    if is_written:
        _written.add(path)
    else:  # what the code has written itself follows from the rest
        _read[module].add(path)


def _tell_parent(module: str, path: str, *, is_written: bool) -> None:
    """Note a file for the process that forked this one, such as a worker of a DataLoader."""
    for process, noted in _children:
        if process != os.getpid():
            os.write(noted, json.dumps([module, path, is_written]).encode() + b"\n")


def _hear_children() -> None:
    """Record what forked processes have noted meanwhile."""
    for process, noted in _children:
        if process == os.getpid():
            lines, _, _ = os.pread(noted, os.fstat(noted).st_size, _heard_bytes[0]).rpartition(b"\n")
            _heard_bytes[0] += len(lines) + bool(lines)
            for module, path, is_written in map(json.loads, filter(None, lines.split(b"\n"))):
                _remember(module, path, is_written=is_written)


def _hear_safetensors() -> None:
    """safetensors opens files outside of Python: its opening function tells of them here."""
    for name in ("safetensors", "safetensors.torch", "safetensors.numpy"):
        with contextlib.suppress(ImportError):
            module: Any = importlib.import_module(name)
            if not hasattr(module.safe_open, "is_heard"):
                module.safe_open = _telling(module.safe_open)


def _telling(opener: Callable[..., Any]) -> Callable[..., Any]:
    def safe_open(filename: Any, *rest: Any, **named: Any) -> Any:
        _note("open", (filename, "r", 0), sys._getframe(1))
        return opener(filename, *rest, **named)

    safe_open.is_heard = True  # type: ignore[attr-defined]
    return safe_open
