"""Finds the files of a user's command: its scripts, the modules that they import, and the files that they name.

    files_of(["python", "eval.py", "--data", "test.csv", "{checkpoint}"], Path.cwd())

They are found by reading, nothing is run: imports of Python scripts that lie beside them, below the working folder or
on PYTHONPATH, and words in scripts and settings that are names of files. What a program puts together from parts is
not found: `depends:` in the recipe names it.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from soupcli.environment import is_of_the_session
from soupcli.errors import ValidationError
from soupcli.files.small_file import read_small, read_start
from soupcli.user_code.modules import is_users

PLACES = ("{checkpoint}", "{weights}", "{folder}")  # of the weights, in a command
MOST = 10_000  # files
READ = 1 << 20  # bytes: larger files are data, and not looked into
SCRIPTS = {".py", ".sh", ".bash", ".zsh", ".pl", ".rb", ".js", ".r", ".jl", ".yaml", ".yml", ".toml", ".json", ".cfg"}
REDIRECTED = re.compile(r">>?\s*\S+")  # what a shell writes
INTERPRETER = re.compile(
    r"(python|bash|sh|zsh|perl|ruby|node|Rscript|julia|env|torchrun)[0-9.]*"
)  # or a wrapper of one
VARIABLE = re.compile(r"\b[A-Z][A-Z0-9_]{2,}\b|(?<=\$)\w+|(?<=\$\{)\w+")
NAME = re.compile(r"[^\s\"'`$(){}\[\]<>|;,=]+")


def split(command: str) -> list[str]:
    """Split a command into words. Raises ValidationError for an open quotation, and without a place for weights."""
    try:
        words = shlex.split(command)
    except ValueError as cause:
        raise ValidationError(f"command {command!r}: {cause}") from cause
    if not any(place in word for word in words for place in PLACES):
        raise ValidationError(
            f"command {command!r}: has no {{checkpoint}}, so every ingredient would score the same",
            hint="write {checkpoint} where the path of the weights goes, or {weights} for their file, {folder} for "
            "their folder",
        )
    return words


def files_of(words: Sequence[str], folder: Path) -> list[Path]:
    """Return the user's own files behind a command that runs in `folder`, sorted. Installed programs are left out."""
    waiting = [file for word in _named(words) for file in _files(folder, word)]
    waiting += list(_module(words, folder))
    program = None if INTERPRETER.fullmatch(Path(words[0]).name) else shutil.which(words[0])
    if program is not None and is_users(os.path.realpath(program)) and _is_script(Path(program)):
        waiting.append(Path(program))
    return _closed(waiting, folder)


def variables_of(words: Sequence[str], files: Sequence[Path]) -> dict[str, str]:
    """Return the environment variables that are set and that words of the command or of its scripts may name."""
    return {name: os.environ[name] for name in sorted(variables_named(words, files)) if name in os.environ}


def variables_named(words: Sequence[str], files: Sequence[Path]) -> set[str]:
    """Return the names that may be those of environment variables, whether they are set or not."""
    texts = [*words, *(text for text in map(_script, files) if text is not None)]
    return {name for text in texts for name in VARIABLE.findall(text) if not is_of_the_session(name)}


def programs_of(words: Sequence[str]) -> list[list[str | None]]:
    """Return the file of a command's program, and of the Python that a shell would start: PATH may lead to others."""
    names = [words[0]] if Path(words[0]).name.startswith("python") else [words[0], "python", "python3"]
    return [[name, shutil.which(name)] for name in names]


def scripts_behind(words: Sequence[str], folder: Path) -> list[Path]:
    """Return the scripts among the words of a command, and the files that they import or name."""
    return _closed([folder / word for word in words if _is_named_script(folder / word)], folder)


def _is_named_script(file: Path) -> bool:
    try:
        return file.suffix.lower() in SCRIPTS and file.is_file() and is_users(str(file))
    except (OSError, ValueError):
        return False


def _closed(waiting: list[Path], folder: Path) -> list[Path]:
    """Return the files, and all files that they lead to."""
    found: set[Path] = set()
    while waiting and len(found) < MOST:
        file = Path(os.path.abspath(waiting.pop()))  # noqa: PTH100 - links stay
        if file not in found:
            found.add(file)
            waiting += _behind(file, folder)
    return sorted(found)


def _named(words: Sequence[str]) -> Iterator[str]:
    """Yield words that may name files; `--data=test.csv` contains one too."""
    for word in words[1:]:
        if "{" not in word:
            yield word
            yield from word.split("=")[1:]


def _files(folder: Path, word: str) -> list[Path]:
    """Return the file that a word names, or all files of the folder that it names."""
    place = folder / word
    try:
        if place.is_file():
            return [place]
        if word not in ("", ".", "..", "/") and place.is_dir() and place.resolve() != folder.resolve():
            return [file for file in _below(place) if file.is_file()][:MOST]
    except (OSError, ValueError):
        pass
    return []


def _below(folder: Path) -> list[Path]:
    hidden = re.compile(r"/(\.|__pycache__)")
    return sorted(file for file in folder.rglob("*") if not hidden.search(str(file)[len(str(folder)) :]))


def _module(words: Sequence[str], folder: Path) -> list[Path]:
    """Return the module of `python -m package.module`."""
    if "-m" not in words[:-1]:
        return []
    name = words[words.index("-m") + 1]
    return _imported(name, [folder]) + _imported(f"{name}.__main__", [folder])


def _is_script(file: Path) -> bool:
    """Whether a file is text that an interpreter runs."""
    try:
        return read_start(file, 2) == b"#!"
    except OSError:
        return False


def _script(file: Path) -> str | None:
    """Return the text of a script or of settings, or None for another file."""
    try:
        if file.stat().st_size > READ or not (file.suffix.lower() in SCRIPTS or _is_script(file)):
            return None
        return read_small(file, most=READ).decode("utf-8", "replace")
    except OSError:
        return None


def _behind(file: Path, folder: Path) -> list[Path]:
    """Return the files that a script imports or names."""
    text = _script(file)
    if text is None:
        return []
    if file.suffix == ".py":
        return _behind_python(text, file, folder)
    return [place for word in set(NAME.findall(REDIRECTED.sub("", text))) for place in _plain_files(word, file, folder)]


def _behind_python(text: str, file: Path, folder: Path) -> list[Path]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    roots = [file.parent, folder, *(Path(root) for root in os.environ.get("PYTHONPATH", "").split(os.pathsep) if root)]
    found: list[Path] = []
    written = {id(node) for node in _written(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [place for alias in node.names for place in _imported(alias.name, roots)]
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1 : node.level] if node.level else roots
            prefix = f"{node.module}." if node.module else ""
            for name in [node.module or "", *(prefix + alias.name for alias in node.names)]:
                found += _imported(name, base)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in written:
            found += _plain_files(node.value, file, folder)
    return found


def _written(tree: ast.AST) -> Iterator[ast.expr]:
    """Return names in `open(name, "w")` and the like. What a program writes is not an input of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            modes = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "mode")]
            if any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax") for mode in modes):
                yield node.args[0] if node.args else node.func


def _plain_files(word: str, file: Path, folder: Path) -> list[Path]:
    """Yield the files that a word in a script names, below the script's folder or the working folder."""
    if not word or len(word) > 1000 or "\0" in word or "\n" in word:
        return []
    try:
        return [place for place in (folder / word, file.parent / word) if place.is_file() and is_users(str(place))]
    except OSError:
        return []


def _imported(name: str, roots: Sequence[Path]) -> list[Path]:
    """Return the files of a dotted module and its packages, below the first root that has it."""
    parts = name.split(".") if name else []
    for root in roots:
        found, place = [], root
        for part in parts:
            place = place / part
            found += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
        if found and is_users(str(found[0])):
            return found
    return []
