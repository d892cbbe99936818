"""torch, imported when one of its names is first used: `from soupcli.late import functional, nn, torch`.

A file that uses torch only inside functions imports it from here. So a command that reads headers, plans, or finds
its scores kept answers without waiting for torch.
"""

from __future__ import annotations

import functools
import gc
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause Python's search for garbage in the block, which makes many objects that stay: a search finds nothing."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


class Searches:
    """How Python searches for garbage in this process."""

    skip_imports = False  # True in a process of our own: what modules leave behind is never looked at again


@contextmanager
def importing() -> Iterator[None]:
    """Pause the search for garbage while modules are imported in the block.

    They make a million objects that stay. One search of them all takes as long as opening hundreds of checkpoints.
    """
    with collection_paused():
        yield
    if Searches.skip_imports:
        gc.freeze()


class _LatePattern:
    """A regular expression, compiled when one of its methods is first used."""

    def __init__(self, text: str, flags: int) -> None:
        self._text, self._flags = text, flags

    @functools.cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._text, self._flags)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._compiled, name)
        setattr(self, name, found)  # which is called 100,000 times of a large folder
        return found


def late_pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return a regular expression that takes long to compile and that most runs do not need; call its methods alone."""
    late: Any = _LatePattern(text, flags)
    return late  # type: ignore[no-any-return]


class _Late(ModuleType):
    """A module of a library, imported when an attribute is first read."""

    library: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.library is None:
            warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)  # torch adds without it
            with importing() if self.__name__ not in sys.modules else nullcontext():
                self.library = importlib.import_module(self.__name__)
        return getattr(self.library, name)


if TYPE_CHECKING:
    import torch as torch
    from torch import nn as nn
    from torch.nn import functional as functional
else:
    torch, nn, functional = map(_Late, ("torch", "torch.nn", "torch.nn.functional"))

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def no_grad(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run the function under torch.no_grad. The decorator of torch itself would import torch with the file."""

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.no_grad():
            return function(*args, **kwargs)

    return run
