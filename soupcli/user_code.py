"""Functions in the user's own Python files, which a recipe names as `file.py:function`."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from soupcli.errors import RecipeError
from soupcli.wording import suggestion


def load_function(reference: str) -> Callable[..., Any]:
    """The function of `file.py:function`; the file runs once, however many of its functions are asked for.

    Raises RecipeError where either is not there and where the file does not run.
    """
    file, _, name = reference.rpartition(":")
    module = _load_module(Path(file), reference)
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    own = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
    raise RecipeError(
        f"{file}: has no function {name!r}{suggestion(name, own)}", hint=f"it has {', '.join(own) or 'none'}"
    )


def content_of(reference: str) -> list[str]:
    """What determines the function of `file.py:function`, wherever the file lies: its name and the file's content."""
    file, _, name = reference.rpartition(":")
    return [name, _digest(Path(file), reference)]


@contextmanager
def users_code() -> Iterator[None]:
    """What the user's code prints goes to stderr: stdout carries the result of the command alone."""
    with redirect_stdout(sys.stderr):
        yield


def told(cause: BaseException, reference: str) -> str:
    """`my_eval.py:12: ValueError: ...`: the user's own line that an exception came through last."""
    file = reference.rpartition(":")[0]
    lines = [frame.lineno for frame in traceback.extract_tb(cause.__traceback__) if Path(frame.filename) == Path(file)]
    if isinstance(cause, SyntaxError) and cause.lineno:
        lines.append(cause.lineno)
    where = f"{file}:{lines[-1]}" if lines else reference
    message = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    first_line = next(iter(message.strip().splitlines()), "")
    return f"{where}: {type(cause).__name__}" + (f": {first_line}" if first_line else "")


def _load_module(path: Path, reference: str) -> ModuleType:
    digest = _digest(path, reference)
    module_name = f"_soup_{path.stem}_{hashlib.sha256(f'{path.resolve()}:{digest}'.encode()).hexdigest()[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
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
        raise RecipeError(told(cause, reference), hint=hint) from cause
    return module


def _digest(path: Path, reference: str) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as cause:
        raise RecipeError(f"{path}: {cause.strerror}, the recipe names {reference}") from cause
