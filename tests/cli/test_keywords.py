"""The functions of soupcli have the options of their commands as typed keywords."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path
from typing import assert_type

import pytest

import soupcli
from soupcli.errors import UsageError
from soupcli.run.made import MadeSoup

ROOT = Path(__file__).parents[2]


def test_written_anew() -> None:
    """cli/keyword_types.py is what docs/keywords.py makes of the commands' options now."""
    made = runpy.run_path(str(ROOT / "docs/keywords.py"))["text"]()
    file = ROOT / "soupcli/cli/keyword_types.py"
    assert file.read_text("utf-8") == made, "make docs (python docs/keywords.py) writes it anew"


def test_a_type_checker_knows_them(family: Path) -> None:
    """What is right has its type; what is wrong is an error for mypy (each `ignore` is needed) and at run time."""
    assert_type(soupcli.mix(["runs/0", "runs/1"], weights=[0.5, 0.5], weights_for={"0.*": [1, 0]}), MadeSoup)
    with pytest.raises(UsageError):
        soupcli.uniform("runs/*/", vall="val")  # type: ignore[call-arg]
    with pytest.raises(UsageError):
        soupcli.rank("runs/*/", val="val", min_delta=0.1)  # type: ignore[call-arg]
    with pytest.raises(UsageError) as refused:
        soupcli.uniform("runs/*/", last="many")  # type: ignore[arg-type]
    assert refused.value.hint == "last: Of each run, take the last N checkpoints"
    with pytest.raises(UsageError):
        soupcli.verify("soup/", rebuild=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a: neither a set of the recipe nor a path"):
        soupcli.rank("runs/*/", val={"a": 1})


def test_help_lists_them() -> None:
    """The signature names every keyword, with its type: what help() and a notebook show."""
    shown = inspect.signature(soupcli.greedy).parameters
    assert {"runs", "progress", "evaluate", "score_key", "val", "min_delta"} <= shown.keys()
    assert shown["min_delta"].annotation == "str | float | None" and "options" not in shown
