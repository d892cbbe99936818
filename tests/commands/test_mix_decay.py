"""`soup mix --decay` along the checkpoints of one run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Ran


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """checkpoint-500 to checkpoint-2000 of one run; the k-th holds the number k."""
    monkeypatch.chdir(tmp_path)
    for number, step in enumerate((500, 1000, 1500, 2000)):
        (tmp_path / f"run/checkpoint-{step}").mkdir(parents=True)
        save_file({"w": torch.full((2,), float(number))}, tmp_path / f"run/checkpoint-{step}/model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("decay", "value"),
    [("linear", 1.5), ("ema:0.5", 0.125 * 0 + 0.125 * 1 + 0.25 * 2 + 0.5 * 3), ("multipliers.txt", 1.0 + 0.5 + 0.25)],
)
def test_decay(run: Path, soup: Callable[..., Ran], decay: str, value: float) -> None:
    """Shape, moving average and file give the weights; members stand in the order of their steps."""
    (run / "multipliers.txt").write_text("1\n0.5\n0.25\n")
    ran = soup("mix", "--ckpts", "run/*/", "--decay", decay, "--json")
    assert ran.code == 0, ran.stderr
    members = json.loads(ran.stdout)["soup"]["members"]
    assert members == sorted(members, key=lambda path: int(path.rpartition("-")[2]))
    assert load_file("soup/model.safetensors")["w"].tolist() == pytest.approx([value] * 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--decay", "exponential"], "expected linear, 1-sqrt, cosine, ema:BETA or a file"),
        (["--decay", "ema:2"], "a number between 0 and 1"),
        (["--decay", "linear", "--weights", "0.5,0.5"], "decay: finds the weights"),
        (["--decay", "linear", "--last", "1"], "has no interval"),
        (["--decay", "short.txt"], "has 1 multipliers, 4 checkpoints have 3 intervals"),
        (["--decay", "words.txt"], "words.txt: could not convert"),
        (["--decay", "linear", "--ckpts", "other/checkpoint-1"], "are not of one run"),
    ],
)
def test_refused(run: Path, soup: Callable[..., Ran], words: list[str], message: str) -> None:
    """What makes no decay of one run is an error with exit code 2."""
    (run / "short.txt").write_text("0.5\n")
    (run / "words.txt").write_text("half\n")
    (run / "other/checkpoint-1").mkdir(parents=True)
    save_file({"w": torch.ones(2)}, run / "other/checkpoint-1/model.safetensors")
    ran = soup("mix", "--ckpts", "run/*/", *words)
    assert ran.code == 2
    assert message in ran.stderr
