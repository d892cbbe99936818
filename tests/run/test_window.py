"""--last, --top, --between and --every through the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Ran


def test_last(family: Path, soup: Callable[..., Ran]) -> None:
    """The soup is of the last two; report and plan name the others, with the reason."""
    ran = soup("uniform", "--ckpts", "runs/*/", "--last", "2", "--json")
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["soup"]["members"] == ["runs/3", "runs/4"]
    assert [one["path"] for one in report["left_out"]] == ["runs/0", "runs/1", "runs/2"]
    assert {one["reason"] for one in report["left_out"]} == {"--last 2"}
    assert report["recipe"]["window"] == {"last": 2}
    assert "using 2 of 5 checkpoints" in ran.stderr
    plan = soup("uniform", "--ckpts", "runs/*/", "--last", "2", "--dry-run")
    assert "left out" in plan.stdout
    assert "runs/0  --last 2" in plan.stdout


def test_by_without_top(family: Path, soup: Callable[..., Ran]) -> None:
    """A metric to choose by needs a number to choose."""
    ran = soup("uniform", "--ckpts", "runs/*/", "--by", "loss")
    assert ran.code == 2
    assert "top: and by: go together" in ran.stderr
