"""Functions in the user's own Python files, which a recipe names as `file.py:function`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soupcli.errors import RecipeError


def load_function(reference: str) -> Callable[..., Any]:
    """Runs the file of `file.py:function` and returns the function. Raises RecipeError where either is not there."""
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise RecipeError(f"{file}: no such file, the recipe names {reference}")
    module_name = f"_soup_recipe_{path.stem}_{abs(hash(path.resolve())):x}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{file}: not a Python file, the recipe names {reference}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as cause:
        raise RecipeError(f"{file}: {type(cause).__name__}: {cause}", hint=f"python {file} shows where") from cause
    function = getattr(module, name, None)
    if not callable(function):
        names = ", ".join(word for word in vars(module) if callable(vars(module)[word]) and not word.startswith("_"))
        raise RecipeError(f"{file}: has no function {name}, it has {names or 'none'}")
    return function  # type: ignore[no-any-return]
