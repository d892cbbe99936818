"""Imports that wait, and what they leave behind."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from soupcli.late import Searches, importing


@pytest.mark.parametrize("skip", [True, False])
def test_what_imports_leave(monkeypatch: pytest.MonkeyPatch, skip: bool) -> None:
    """In a process of our own it is never searched for garbage again; elsewhere the search is as it was."""
    monkeypatch.setattr(Searches, "skip_imports", skip)
    before = gc.get_freeze_count()
    try:
        with importing():
            assert not gc.isenabled()
        assert gc.isenabled() and (gc.get_freeze_count() > before) == skip
    finally:
        if not before:
            gc.unfreeze()


def test_the_command_skips_them() -> None:
    """`soup` is a process of our own, and `import soupcli` is none."""
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); "
    for words, skipped in (("from soupcli.cli.app import main; main()", True), ("import soupcli; soupcli.find", False)):
        argv = [sys.executable, "-c", code + words, "schema", "recipe"]
        ran = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert ran.stdout.endswith(f"{skipped}\n")
