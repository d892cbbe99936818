"""torch, imported when the first of its names is asked for: `from soupcli.late import functional, nn, torch`.

A file that computes in its functions alone imports it from here. So a command that reads headers, plans, or finds
its scores kept answers without waiting for torch.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar


class _Late(ModuleType):
    """A module of a library by its name: imported at the first look into it."""

    library: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.library is None:
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
    """The function under torch.no_grad, which as a decorator of its own would import torch with the file."""

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.no_grad():
            return function(*args, **kwargs)

    return run
