"""Which installed packages the user's code imports: their versions stand for their files.

A Python that the user's code starts may have packages of its own, so it notes in which folder it has found them.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.files.small_file import read_small
from soupcli.user_code import notes
from soupcli.user_code.files import imported_names, read_modules
from soupcli.user_code.modules import MAX_SOURCE, is_library, libraries, stated_in

if TYPE_CHECKING:
    from importlib.metadata import Distribution


def used_packages() -> list[str]:
    """Names of the installed distributions that the user's code imports, directly or through its own modules.

    Behind the name of one that a program has imported, after a space, stands the folder where it is installed.
    """
    modules = read_modules()
    names = {name.partition(".")[0] for name in imported_names()} | {
        one for file in modules for one in imports_of(file)
    }
    found = {name for name in names if file_of(name) and name not in sys.stdlib_module_names}  # editable ones too
    distributions = _distributions(None) if modules and any(is_library(file_of(name)) for name in names) else {}
    own = {one for name in found for one in distributions.get(name, ())}
    return sorted(own.union(_of_programs(notes.of("package", modules))))


def _of_programs(words: set[str]) -> Iterator[str]:
    for word in words:
        name, _, folder = word.partition(" ")
        yield from (f"{one} {folder}" for one in _distributions(folder).get(name, ()))


def note_packages() -> None:
    """Note which installed packages this Python, which ends now, has imported for the user's code, and from where."""
    started = getattr(sys.modules.get("__main__"), "__spec__", None)  # of `python -m package`
    for name in {one.partition(".")[0] for one in (*notes.every("imported"), getattr(started, "name", ""))}:
        file = file_of(name)
        folder = next((place for place in libraries() if "-packages" in place and file.startswith(place)), None)
        if folder is not None:
            notes.add("package", "", f"{name} {folder.rstrip(os.sep)}")


def file_of(name: str) -> str:
    """Return the file of a loaded module, or a name in its folder if it has none; "" if it is not loaded."""
    module = sys.modules.get(name)
    file = stated_in(module, "__file__")
    if file is None and (places := list(stated_in(module, "__path__") or ())):
        file = os.path.join(places[0], "")  # noqa: PTH118
    return file if isinstance(file, str) else ""


@functools.cache
def _distributions(folder: str | None) -> Mapping[str, Sequence[str]]:
    """The distributions of each importable name that are installed in a folder, by default for this Python."""
    from importlib import metadata  # noqa: PLC0415 - slow, and a Python that a command starts does not need it

    if folder is None:
        return metadata.packages_distributions()
    found: defaultdict[str, list[str]] = defaultdict(list)
    for one in metadata.distributions(path=[folder]):
        for name in _importable(one):
            found[name].append(one.metadata["Name"])
    return found


def _importable(installed: Distribution) -> set[str]:
    declared = (installed.read_text("top_level.txt") or "").split()
    return set(declared) or {file.parts[0].partition(".")[0] for file in installed.files or ()}


@functools.cache
def imports_of(file: str) -> frozenset[str]:
    """The first names of what a module imports."""
    try:
        tree = ast.parse(read_small(Path(file), most=MAX_SOURCE))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return frozenset()
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    return frozenset(name.partition(".")[0] for name in names)
