"""docs/learned.md: every command runs as it is written, in the folder of the digits demo."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soupcli.demo import digits

PAGE = Path(__file__).parents[2] / "docs/learned.md"
COMMANDS = [
    line.removeprefix("soup ").split(" > ")[0]
    for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.long
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soup: Callable[..., Any]) -> None:
    """In the order of the page, on ingredients of a smaller demo: exit code 0, and the same soup where it says so."""
    size = digits.DigitsSize(runs=3, epochs=(1, 2), pretraining_epochs=2, training=100, validation=100)
    digits.make(tmp_path / "digits", size=size)
    monkeypatch.chdir(tmp_path / "digits")
    recipe = Path("soup.yaml").read_text()
    quick = recipe + "learned: {steps: 6}\n"  # not 100: the page is tested, not the fit
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        Path("soup.yaml").write_text(recipe if "--by search" in command else quick)
        ran = soup(*shlex.split(command))
        assert ran.code == 0, ran.stderr
    weights = {name: Path(name, "model.safetensors").read_bytes() for name in ("learned", "disk", "again", "affine")}
    assert weights["learned"] == weights["disk"] == weights["again"] != weights["affine"]
