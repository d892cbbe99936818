"""The user's modules among all that are loaded."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from soupcli.user_modules import user_modules


class LazyModule(ModuleType):
    """As speechbrain's and others': it imports another module when anything is asked of it."""

    def __getattr__(self, name: str) -> object:
        raise ImportError(f"asked for {name}")


def test_lazy_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not asked, and what is no module at all is passed over."""
    monkeypatch.setitem(sys.modules, "lazy", LazyModule("lazy"))
    monkeypatch.setitem(sys.modules, "odd", object())
    assert not {"lazy", "odd"} & {name for name, _ in user_modules()}
