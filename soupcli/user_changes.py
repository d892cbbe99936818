"""Which files change while the user's code reads them, so that no score is kept of what they were.

A file's state is noted when it is opened (see user_files.py). Who changes it afterwards is not known: a program makes
its own files in ways that nobody sees, and so does anybody else.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from soupcli import user_files
from soupcli import user_notes as notes
from soupcli.user_events import state_of
from soupcli.user_files import read_modules
from soupcli.user_modules import forget


def begin() -> None:
    """Note that a run begins. Modules of the user's run again if a file that they have opened is another one now."""
    user_files.begin()
    if changed_files():
        forget()
        notes.forget("opened")


def made_files() -> set[Path]:
    """Return files that programs have read and that changed since these began: made by them, or by others."""
    return {Path(path) for path in notes.of("made", read_modules()) - notes.every("written")}


def changed_files(kind: str = "opened") -> list[Path]:
    """Return the files that are other ones now than when the user's code opened them, but for what it has written.

    Those that were "opened by a program" may be made by it, again and again: only what it read last counts.
    """
    states: defaultdict[str, set[str]] = defaultdict(set)
    for word in notes.of(kind, read_modules()):
        state, _, path = word.partition(" ")
        states[path].add(state)
    found = []
    for path in sorted(states.keys() - notes.every("written")):
        now = state_of(path)
        is_another = bool(now) and now not in states[path]
        if is_another or (kind == "opened" and len(states[path]) > 1):
            found.append(Path(path))
    return found
