"""Which files change while the user's code reads them, so that no score is kept of what they were.

A file's state is noted when it is opened (see hooks.py). Who changes it afterwards is not known: a program makes
its own files in ways that nobody sees, and so does anybody else.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from soupcli.environment import searched
from soupcli.user_code import files as user_files
from soupcli.user_code import notes
from soupcli.user_code.events import state_of
from soupcli.user_code.files import changed_by_code, moving, read_modules
from soupcli.user_code.hooks import pass_over_threads
from soupcli.user_code.modules import forget
from soupcli.user_code.projects import enter, is_nested, searched_folders


def begin(folder: Path) -> None:
    """Note that a run of the recipe in `folder` begins.

    Modules of the user's run again if a file that they have opened is another one now. A run within another one goes on
    with its notes.
    """
    if is_nested():
        enter(folder)
        return
    pass_over_threads()
    user_files.begin()
    searched[:] = searched_folders()
    enter(folder)
    if changed_files():
        forget()
        notes.forget("opened")


def made_files() -> set[Path]:
    """Return files that changed after a program that read them, or the run that names them, began.

    The user's code may have made them, or somebody else. A file server's clock may also be ahead of this machine's.
    """
    modules = read_modules()
    made = notes.of("made", modules) | moving | changed_by_code(modules)
    return {Path(path) for path in made - notes.every("written")}


def changed_files(kind: str = "opened") -> list[Path]:
    """Return the files that are other ones now than when the user's code opened them, but for what it has written.

    One that was "opened by a program" may be made by it again and again: it counts only if its state is a new one.
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
