"""Hears from Python what the user's code opens, lists, writes and starts, and notes it.

    watch("_soup_my_eval_1f3a")            # the name of a module of the user's: from here on

Python tells every opening of a file to audit hooks (PEP 578). An opening counts as the user's if a function of a file
of theirs is among its callers, nearer than any function of this program. What is forked, spawned or started of Python
notes what it reads as well (see notes.py). Of what compiled libraries open, the system tells: see
openings.py.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from soupcli.environment import EVERY
from soupcli.user_code import notes, openings
from soupcli.user_code.events import (
    ATTRIBUTES,
    DATABASE,
    EVENTS,
    LISTINGS,
    STARTING,
    is_only_read,
    is_writing,
    paths_of,
    started,
    state_of,
    words_of,
)
from soupcli.user_code.modules import OWN, SYSTEM, Seekers, SourceLoader, asking, is_users, libraries

IMPORTING = "<frozen importlib"
ENVIRONMENT = re.compile(r"/proc/(self|thread-self|\d+)/environ")

_watching = threading.Event()
_is_child = threading.Event()  # all code of this process is the user's
_is_program = threading.Event()  # and it is no worker of multiprocessing
_unheard: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_heard_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # of neither side, that have read something
_blocks: list[set[threading.Thread]] = []  # threads that are there when a block of `unheard` begins
_busy = threading.local()
passing_on: set[CodeType] = set()  # functions of this program that stand for those of Python, and only call them


def watch(module: str) -> None:
    """Begin to record the files that the user's code opens. `module` is the name of one of the user's modules."""
    notes.add("imported", "", module)
    if not _watching.is_set():
        _watching.set()
        notes.environment()  # which forked processes need
        sys.addaudithook(_heard)
        _hear_imports()
        _hear_safetensors()


def is_watching() -> bool:
    """Whether this process has a function of the user's, or is one that the user's code has started."""
    return _watching.is_set()


def watch_child(*, is_worker: bool) -> None:
    """Begin in a Python that the user's code has started. A worker loads its modules as this process does."""
    _watching.set()
    _is_child.set()
    sys.addaudithook(_heard)
    if is_worker:
        _hear_imports()
    else:
        _is_program.set()


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Record no reads within the block, and no reads of threads that begin there, even after it."""
    now, before = getattr(_busy, "now", False), set(threading.enumerate())
    opened = openings.opened()
    _busy.now = True
    _blocks.append(before)
    try:
        yield
    finally:
        _unheard.update(set(threading.enumerate()) - before)
        _blocks.remove(before)
        openings.pass_over(map(Path, openings.opened() - opened))
        _busy.now = now


def pass_over_threads() -> None:
    """Record no reads of threads that run already, such as those of a notebook.

    Threads that the user's code started in an earlier run, such as pools of workers, still count, and so does this one.
    """
    _unheard.discard(threading.current_thread())  # it may have waited while another thread began a run
    _unheard.update(set(threading.enumerate()) - {threading.current_thread()} - set(_heard_threads))


def _is_unheard(thread: threading.Thread) -> bool:
    """Whether the thread began in a block of `unheard`, which may still go on."""
    if thread not in _unheard and any(thread not in before for before in list(_blocks)):
        _unheard.add(thread)
    return thread in _unheard


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    """Handle one audited event of Python. It must not raise."""
    if not EVENTS:  # Python ends, and has emptied this module already
        return
    if event == "open":
        openings.told(arguments[0])
    if event in EVENTS:
        frame = sys._getframe().f_back
        while frame is not None and frame.f_code in passing_on:
            frame = frame.f_back
        _note(event, arguments, frame)


def _note(event: str, arguments: tuple[Any, ...], frame: FrameType | None) -> None:
    """Record the files of an event if the user's code caused it. `frame` is the function that did."""
    place = "" if frame is None else frame.f_code.co_filename  # Python itself opens the script that it runs
    if getattr(_busy, "now", False) or _is_unheard(threading.current_thread()):
        return
    if event in LISTINGS and place.startswith(IMPORTING):
        return
    _busy.now = True
    try:
        module = users_caller(frame)
        if module and event == "import":
            notes.add("imported", module, str(arguments[0]))
        elif module is not None and event != "import" and _is_called_by_us(frame):
            if module:
                note_run(module, frame)
            else:
                _heard_threads.add(threading.current_thread())
            _note_paths(event, arguments, module, place)
            if event in STARTING and (user := asking(frame)) is not None and is_users(user.f_code.co_filename):
                notes.add("program", module, json.dumps(started(event, arguments)))
    except Exception:  # noqa: BLE001 - an error here would be one of the user's code
        return
    finally:
        _busy.now = False


def _note_paths(event: str, arguments: tuple[Any, ...], module: str, place: str) -> None:
    """Note what an event of the user's code in `module` names. `place` is the file of the function that caused it."""
    if event in STARTING and module:
        notes.add("started", module, json.dumps(words_of(event, arguments)))
    for path in paths_of(event, arguments):
        if event == "os.scandir" and is_users(place):
            notes.add("scanned", place, path)
        if event in ATTRIBUTES:
            notes.add("stated", module, path)
        is_open = event == "open"
        is_written = event == "os.rename" or (is_open and is_writing(*arguments[1:3]))
        is_opened = is_open and is_only_read(*arguments[1:3])
        if ENVIRONMENT.fullmatch(path):
            notes.add("variable", module, EVERY)
        elif (is_open and not is_written and not is_opened) or event == DATABASE:
            _remember_both(module, path)
        else:
            remember(module, path, is_written=is_written, is_opened=is_opened)


def users_caller(frame: FrameType | None) -> str | None:
    """The file of the user's function that is nearest, None if this program is nearer; "" of a thread of neither."""
    while frame is not None:
        caller = _caller_in(frame.f_code.co_filename)
        if caller != "":
            return caller
        frame = frame.f_back
    return ""


def note_run(module: str, frame: FrameType | None) -> None:
    """Note which other file of the user's has called `module`, the nearest one: it may have run it by itself.

    In a process that the user's code has started all notes count, whoever makes them.
    """
    while not _is_child.is_set() and frame is not None and (caller := _caller_in(frame.f_code.co_filename)) is not None:
        if caller not in ("", module):
            notes.add("ran", caller, module)
            return
        frame = frame.f_back


@cache
def _caller_in(file: str) -> str | None:
    """What `users_caller` says of a function in this file; "" if it is a library's."""
    if file.startswith(OWN):
        return None
    return file if is_users(file) else ""


def _is_called_by_us(frame: FrameType | None) -> bool:
    """Whether a function of this program is among the callers, or the thread is not the main one.

    What a script or notebook around this program opens by itself says nothing of the scores.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith(OWN):
            return True
        frame = frame.f_back
    return _is_child.is_set() or threading.current_thread() is not threading.main_thread()


def remember(module: str, path: str, *, is_written: bool = False, is_opened: bool = False) -> None:
    """Note a file or folder that code of `module` reads or writes. Of a file that it opens its state is noted too."""
    if path.endswith(".pyc"):  # of a module that a started Python has loaded
        path = "" if is_written else _source_of(path)
    if not path or path.startswith((OWN, *libraries(), *SYSTEM)):
        return
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):  # noqa: PTH110, PTH112, PTH113
        return
    if not is_written and notes.has("written", path):
        return  # what the code has written itself follows from the rest
    notes.add("written" if is_written else "made" if notes.is_made_by_command(path) else "read", module, path)
    if is_opened and (state := state_of(path)):
        notes.add("opened by a program" if _is_program.is_set() else "opened", module, f"{state} {path}")


def _remember_both(module: str, path: str) -> None:
    """Note a file that code of `module` opens so that it can read and change it. One that is not there is made."""
    state = state_of(path)
    remember(module, path, is_written=not state)
    if state:
        notes.add("opened for both", module, f"{state} {path}")


def note_openings() -> None:
    """Note what compiled libraries have opened in a Python that the user's code has started."""
    for path in openings.opened():
        remember(notes.OTHERS, path)


def _source_of(path: str) -> str:
    try:
        return importlib.util.source_from_cache(path) if _is_child.is_set() else ""
    except ValueError:
        return ""


def _hear_imports() -> None:
    sys.meta_path.insert(0, Seekers)
    SourceFileLoader.get_code = _of_text(SourceFileLoader.get_code)  # type: ignore[method-assign]


def _of_text(get_code: Callable[[SourceFileLoader, str], CodeType | None]) -> Any:
    """Python's way to load a file, but one of the user's always from its text: code may call loaders by itself."""

    def read(self: SourceFileLoader, name: str) -> CodeType | None:
        path = self.get_filename(name)
        if path.startswith(OWN) or not is_users(path):
            return get_code(self, name)
        if caller := users_caller(sys._getframe(1)):
            notes.add("ran", caller, path)
        return SourceLoader(name, path).get_code(name)

    return read


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
