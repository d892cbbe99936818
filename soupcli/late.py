"""torch, imported when the first of its names is asked for: `from soupcli.late import torch`.

A file that computes in its functions alone imports it from here. So a command that reads headers, plans, or finds
its scores kept answers without waiting for torch.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Late(ModuleType):
    """A library by its name: imported at the first look into it, of which each name is kept."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import torch as torch
else:
    torch = _Late("torch")
