"""What the user's code has read, noted by this process and by all processes that it starts.

    with notes.shared_with_children():     # forked, spawned, or started as programs of Python
        ...
    notes.add("read", module, path)        # in any of them
    notes.of("read", modules)              # words that code in these files has noted, and those of other processes

A process that was started reads the name of a file from its environment, and adds its notes there. `witness/` begins to
watch in a Python that was started; `ATTENDED` tells that one has.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path, PurePath

from soupcli.environment import WITNESS, variable

# Kinds of words: paths, names, and commands as JSON.
OF_FILES = {
    "read",
    "written",
    "made",
    "opened",
    "opened by a program",
    "opened for both",
    "asked",
    "stated",
    "scanned",
    "copied",
    "ran",
}
OF_NAMES = {"variable", "imported", "sought", "package", "attended"}
OF_COMMANDS = {"started", "program", "running"}
KINDS = OF_FILES | OF_NAMES | OF_COMMANDS
LONGEST = 1 << 20  # bytes of a note
COARSE = 2_000_000_000  # nanoseconds: some file systems tell times apart no finer, and servers' clocks differ
FINE = 50_000_000  # of this machine's own file systems, which tell the time of the last tick of its clock
MOST = 100_000  # words of one kind; more are a sign of something else
PLACE = "SOUP_NOTES"  # the variable that names the file
SINCE = "SOUP_NOTES_SINCE"  # the variable with the time when a command was started, in nanoseconds
OTHERS = "*"  # in the place of a file of code: another process
ATTENDED = "attended"  # kind of the note that a started Python makes first: its session

_notes: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))  # kind -> word -> files
_file: list[str] = []
_owner = [os.getpid()]
_heard = [0]  # bytes of the file that were read
_passed: set[str] = set()  # files and folders that keys know by themselves
_began = [0]  # when this process, or the command that it is a part of, was started


def add(kind: str, module: str, word: str) -> None:
    """Note a word once. It must not raise."""
    words = _notes[kind]
    if len(words) >= MOST or module in words.get(word, ()):
        return
    words[word].add(module)
    if _file and os.getpid() != _owner[0]:
        with contextlib.suppress(OSError):
            descriptor = os.open(_file[0], os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, json.dumps([kind, word]).encode() + b"\n")
            os.close(descriptor)


def has(kind: str, word: str) -> bool:
    """Whether anybody has noted the word."""
    return word in _notes[kind]


def of(kind: str, modules: Set[str]) -> set[str]:
    """Return the words that code of `modules` has noted, and those of threads and processes of no module."""
    _hear()
    return {word for word, noting in list(_notes[kind].items()) if noting & modules or OTHERS in noting or "" in noting}


def every(kind: str) -> set[str]:
    """Return all words of a kind."""
    _hear()
    return set(_notes[kind])


def pass_over(paths: Iterable[Path]) -> None:
    """Take no notes of other processes about these files, and about what is in these folders."""
    _passed.update(os.path.abspath(path) for path in paths)  # noqa: PTH100 - links stay


def _is_passed(word: str) -> bool:
    return word.startswith(os.sep) and not _passed.isdisjoint({word, *map(str, PurePath(word).parents)})


def forget_others() -> None:
    """Forget what other processes have noted. A new run starts its own."""
    _hear()
    forget("program")  # which a run is to say again only if it starts it again
    for words in _notes.values():
        for word in [word for word, noting in words.items() if noting == {OTHERS}]:
            del words[word]


def forget(kind: str) -> None:
    """Forget all words of a kind."""
    _notes[kind].clear()


def begin_in_child() -> bool:
    """Whether this process was started by one that takes notes. From here on it adds to them."""
    place = os.environ.get(PLACE, "")
    if not os.path.isfile(place):  # noqa: PTH113 - asked once more by what watches
        return False
    _file[:], _owner[0], _began[0] = [place], 0, int(os.environ.get(SINCE, time.time_ns()))
    add(ATTENDED, OTHERS, str(os.getsid(0)))
    add("running", OTHERS, json.dumps(sys.orig_argv))
    return True


def attended(session: int) -> bool:
    """Whether a Python of this session of processes has noted what it reads."""
    return str(session) in every(ATTENDED)


def environment() -> Mapping[str, str]:
    """Return the variables for a process that is to add to the notes; none if no file can be made for them."""
    if not _file:
        from soupcli.files.unfinished import folder_of_process  # noqa: PLC0415 - a started Python does not need it

        try:
            place = folder_of_process("soup-notes") / "notes"
            place.touch(mode=0o600)
        except OSError:
            return {}
        _file[:], _owner[0], _heard[0] = [str(place)], os.getpid(), 0
    path = os.pathsep.join(filter(None, (WITNESS, variable("PYTHONPATH"))))
    return {PLACE: _file[0], "PYTHONPATH": path}


def environment_of_command() -> Mapping[str, str]:
    """Return the same for a command that starts now. What is written from now on is its own."""
    return {**environment(), SINCE: str(time.time_ns())}


def is_made_by_command(path: str) -> bool:
    """Whether a file may have changed since this process, or the command that it is a part of, was started."""
    try:
        found = os.stat(path)  # noqa: PTH116
        return bool(_began[0]) and found.st_ctime_ns >= _began[0] - grain(found)
    except OSError:
        return False


def grain(found: os.stat_result) -> int:
    """Return how far the time of a file may be from this machine's clock, in nanoseconds."""
    is_local = os.major(found.st_dev) != 0 or (_file and os.stat(_file[0]).st_dev == found.st_dev)  # noqa: PTH116
    return FINE if is_local and found.st_ctime_ns % 1_000_000_000 else COARSE


@contextlib.contextmanager
def shared_with_children() -> Iterator[None]:
    """Let all processes that are started within the block add to the notes."""
    given = environment()
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            elif os.environ.get(name) == given[name]:
                os.environ[name] = value


def _hear() -> None:
    """Take over what other processes have noted meanwhile. Several threads may do so at once."""
    if not _file or os.getpid() != _owner[0]:
        return
    with contextlib.suppress(OSError), open(_file[0], "rb") as file:  # noqa: PTH123 - a name that is known
        at = file.seek(_heard[0])
        while (line := file.readline(LONGEST)).endswith(b"\n") or len(line) == LONGEST:
            _heard[0] = at = at + len(line)
            kind, word = _parsed(line)
            path = word.partition(" ")[2] if kind.startswith("opened") else word  # behind the state of the file
            if not word or _is_passed(path) or (kind in ("read", "made") and word in _notes["written"]):
                continue
            if word in _notes[kind] or len(_notes[kind]) < MOST:
                _notes[kind][word].add(OTHERS)


def _parsed(line: bytes) -> tuple[str, str]:
    """Return kind and word of a note; ("", "") for what `add` has not written: any program can write to the file."""
    try:
        kind, word = json.loads(line)
        command = json.loads(word) if kind in OF_COMMANDS else []
        is_note = kind in KINDS and b"\0" not in os.fsencode(word) and isinstance(command, list)
        is_note = is_note and all(isinstance(one, str) for one in command)
    except (ValueError, TypeError, RecursionError):
        return "", ""
    return (kind, word) if is_note else ("", "")
