"""The page on Python is run: its blocks, from top to bottom, in a folder like the one that it speaks of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["docs/python.md", "README.md"])
def test_page_runs(page: str, family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python does what the page says."""
    monkeypatch.syspath_prepend(str(family))
    monkeypatch.delitem(__import__("sys").modules, "net", raising=False)
    blocks = PYTHON.findall((ROOT / page).read_text("utf-8"))
    assert blocks
    names: dict[str, object] = {"loader": None}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert names["soup"]
