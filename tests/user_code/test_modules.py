"""The user's modules among all that are loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from soupcli.user_code.modules import is_users, libraries, user_modules


class LazyModule(ModuleType):
    """As speechbrain's and others': it imports another module when anything is asked of it."""

    def __getattr__(self, name: str) -> object:
        raise ImportError(f"asked for {name}")


def _files() -> dict[str, str]:
    return {one.name: one.file for one in user_modules()}


def test_lazy_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not asked, and what is no module at all is passed over."""
    monkeypatch.setitem(sys.modules, "lazy", LazyModule("lazy"))
    monkeypatch.setitem(sys.modules, "odd", object())
    assert not {"lazy", "odd"} & set(_files())


def test_another_module_under_the_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is loaded, replaced by another or taken away since the last look is seen as it is now."""
    files = [str(tmp_path / f"{name}.py") for name in ("first", "second")]
    for file in (files[0], files[1], os.__file__, files[0]):
        module = ModuleType("replaced")
        module.__file__ = file
        monkeypatch.setitem(sys.modules, "replaced", module)
        for _ in range(2):
            assert _files().get("replaced") == (file if file in files else None)
    monkeypatch.delitem(sys.modules, "replaced")
    assert "replaced" not in _files()


def test_shared_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Packages that lie in a folder of another Python, as clusters share them, are not compiled as the user's code."""
    shared, own = tmp_path / "apps/lib/python3/site-packages", tmp_path / "helpers"
    monkeypatch.setattr(sys, "path", [*sys.path, str(shared), str(own)])
    for known in (libraries, is_users):
        known.cache_clear()
    try:
        assert not is_users(str(shared / "torch/__init__.py"))
        assert is_users(str(own / "helper.py"))
    finally:
        monkeypatch.undo()
        for known in (libraries, is_users):
            known.cache_clear()
