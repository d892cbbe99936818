"""Classes in modules that exist only while a file is saved, as the library that wrote it is absent where it is read."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def module_of(name: str, **classes: type) -> Iterator[types.ModuleType]:
    """A module of this name with these classes in it, and the packages above it; all are gone afterwards."""
    names = [".".join(name.split(".")[: depth + 1]) for depth in range(name.count(".") + 1)]
    for each in names:
        assert each not in sys.modules, each
        sys.modules[each] = types.ModuleType(each)
    module = sys.modules[name]
    for attribute, value in classes.items():
        value.__module__, value.__qualname__ = name, attribute
        setattr(module, attribute, value)
    try:
        yield module
    finally:
        for each in names:
            del sys.modules[each]
