"""Functions in the user's own Python files, which a recipe names as `file.py:function`."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from soupcli.errors import RecipeError
from soupcli.files.small_file import read_small
from soupcli.user_code import lookups, openings
from soupcli.user_code.hooks import watch
from soupcli.user_code.modules import MAX_SOURCE, SourceLoader, forgotten
from soupcli.user_code.notes import shared_with_children
from soupcli.user_code.projects import make_way
from soupcli.wording import suggestion


class OwnFunction(NamedTuple):
    """A function that a caller in Python gives as an object."""

    function: Callable[..., Any]
    key: str  # tells what it does from what any other does
    file: str  # where it is written
    takes_tensors: bool  # (name, tensor) pairs in the place of a network


MOST_FRAMES = 10  # of a traceback that are shown

_given: dict[str, list[OwnFunction]] = {}  # by reference; of functions with one key the last counts


@contextmanager
def given(
    name: str,
    function: Callable[..., Any],
    *,
    key: str | None,
    tensors: bool = False,
    of: Callable[..., Any] | None = None,
) -> Iterator[str]:
    """Yield a reference to the function, valid within the block. Without a `key` none of its results are kept.

    `of` is the user's own function, if `function` only calls it.
    """
    tag = uuid.uuid4().hex
    code = getattr(of or function, "__code__", None)
    reference = f"<given>/{tag if key is None else key}.py:{name}"
    known = OwnFunction(function, key or tag, code.co_filename if code is not None else reference, tensors)
    _given.setdefault(reference, []).append(known)
    try:
        yield reference
    finally:
        _given[reference].remove(known)
        if not _given[reference]:
            del _given[reference]


def named(reference: str) -> str:
    """Return the function's name for errors: `file.py:function`, or the keyword that it was given by."""
    return f"{reference.rpartition(':')[2]}=" if reference in _given else reference


def is_given(reference: str) -> bool:
    """Whether the function was given as an object."""
    return reference in _given


def takes_tensors(reference: str) -> bool:
    """Whether the function takes (name, tensor) pairs instead of a network."""
    return reference in _given and _given[reference][-1].takes_tensors


def load_function(reference: str) -> Callable[..., Any]:
    """Load the function of `file.py:function`; the file runs only once for all of its functions.

    Raises RecipeError if either is not there, or if the file does not run.
    """
    if reference in _given:
        return _given[reference][-1].function
    file, _, name = reference.rpartition(":")
    module = _load_module(Path(file), reference)
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    own = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
    raise RecipeError(
        f"{file}: has no function {name!r}{suggestion(name, own)}", hint=f"it has {', '.join(own) or 'none'}"
    )


def _hash(path: Path) -> str:
    return hashlib.sha256(read_small(path, most=MAX_SOURCE)).hexdigest()


def content_of(reference: str, hash_of: Callable[[Path], str] = _hash) -> list[str]:
    """Return the identity of `file.py:function`: its name, the file's content, and its place from the working folder.

    Two files of one content may each open what lies beside it. What they import or open is not a part of the identity:
    see files.py. Raises RecipeError if there is no such file.
    """
    file, _, name = reference.rpartition(":")
    if reference in _given:
        return [name, _given[reference][-1].key]
    return [name, _digest(Path(file), reference, hash_of), os.path.relpath(file)]


@contextmanager
def users_code() -> Iterator[None]:
    """Run the user's code within the block. Its prints go to stderr, and it does not see this command's arguments.

    stdout carries only the result of the command.
    """
    words, sys.argv = sys.argv, sys.argv[:1]
    try:
        with redirect_stdout(sys.stderr), shared_with_children():
            yield
    finally:
        sys.argv = words


def describe_error(cause: BaseException, reference: str) -> str:
    """Return `my_eval.py:12: ValueError: ...`, with the last line of the user's file that the exception passed."""
    file, place = _file_of(reference)
    lines = [frame.lineno for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == place]
    if isinstance(cause, SyntaxError) and cause.lineno:
        lines.append(cause.lineno)
    where = f"{file}:{lines[-1]}" if lines else named(reference)
    message = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    first_line = next(iter(message.strip().splitlines()), "")
    return f"{where}: {type(cause).__name__}" + (f": {first_line}" if first_line else "")


def hint_with_traceback(hint: str, cause: BaseException, reference: str) -> str:
    """Return the hint, followed by the traceback from the user's own file on."""
    _, place = _file_of(reference)
    frames = traceback.extract_tb(cause.__traceback__)
    own = [number for number, frame in enumerate(frames) if frame.filename == place]
    if not own:
        return hint
    shown = [*frames[own[0] : own[0] + MOST_FRAMES // 2], *frames[max(own[0] + MOST_FRAMES // 2, len(frames) - 5) :]]
    return "\n".join([hint, *"".join(traceback.format_list(shown)).rstrip().split("\n")])


def _file_of(reference: str) -> tuple[str, str]:
    """Return the user's file as it was named, and as frames of a traceback name it."""
    file = _given[reference][-1].file if reference in _given else reference.rpartition(":")[0]
    return file, os.path.abspath(file)  # noqa: PTH100 - links stay


def _load_module(path: Path, reference: str) -> ModuleType:
    digest = _digest(path, reference)
    forgotten()
    make_way(path.parent)
    module_name = f"_soup_{path.stem}_{hashlib.sha256(f'{path.resolve()}:{digest}'.encode()).hexdigest()[:16]}"
    watch(module_name)
    lookups.watch()
    openings.watch([str(path.parent), os.getcwd()])  # noqa: PTH109
    if module_name in sys.modules:
        return sys.modules[module_name]
    place = os.path.abspath(path)  # noqa: PTH100 - links stay
    spec = importlib.util.spec_from_file_location(module_name, place, loader=SourceLoader(module_name, place))
    if spec is None or spec.loader is None:
        raise RecipeError(f"{path}: not a Python file, the recipe names {reference}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up here
    try:
        with users_code():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as cause:
        del sys.modules[module_name]
        hint = f"python {path} shows where"
        if isinstance(cause, ModuleNotFoundError):
            hint = f"modules beside the file are found with PYTHONPATH={path.parent}"
        hint = hint_with_traceback(hint, cause, reference)
        raise RecipeError(describe_error(cause, reference), hint=hint) from cause
    return module


def _digest(path: Path, reference: str, hash_of: Callable[[Path], str] = _hash) -> str:
    try:
        read_small(path, most=MAX_SOURCE)
        return hash_of(path)
    except OSError as cause:
        raise RecipeError(f"{path}: {cause.strerror}, the recipe names {reference}") from cause
