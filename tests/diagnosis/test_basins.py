"""Evidence of different basins that needs files of other libraries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

peft = pytest.importorskip("peft", reason="peft is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from tests.checkpoints.adapters.test_adapter import TARGETS, base_of, save_adapter  # noqa: E402


@pytest.mark.parametrize("words", [(), ("--base", "base")], ids=" ".join)
def test_adapters_are_no_strangers(
    tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Adapters that turn the layers they change by a right angle have the rest in common: no verdict without scores."""
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=40
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        save_adapter(Path("runs") / str(seed), base_of(Path("base")), seed, target_modules=TARGETS, r=4)
    ran = soup("inspect", "--ckpts", "runs/*/", "--json", *words)
    assert ran.code == 0, ran.stderr
    inspection = json.loads(ran.stdout)["inspection"]
    assert max(inspection["geometry"]["layer_angles"].values()) > 60
    assert inspection["verdicts"] == []
