"""Evidence of different basins that needs files of other libraries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

peft = pytest.importorskip("peft", reason="peft is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from tests.checkpoints.adapters.test_adapter import TARGETS, base_of, save_adapter  # noqa: E402
from tests.conftest import build_net  # noqa: E402


def test_a_stranger_that_the_mean_outweighs(family: Path, soup: Callable[..., Any]) -> None:
    """A network of another start, far worse by itself, is named though the mean of all is as good as the others."""
    torch.manual_seed(9)
    start, stranger = build_net(), build_net()
    inputs = torch.randn(400, 8)
    save_file({"inputs": inputs, "labels": start(inputs).argmax(dim=1)}, "data/val.safetensors")
    runs = [{n: t + 0.2 * t.std() * torch.randn_like(t) for n, t in start.state_dict().items()} for _ in range(5)]
    runs.append({name: 0.05 * tensor for name, tensor in stranger.state_dict().items()})
    for number, weights in enumerate(runs):
        Path(f"near/{number}").mkdir(parents=True)
        save_file(weights, f"near/{number}/model.safetensors")
    ran = soup("inspect", "--ckpts", "near/*/", "--val", "val", "--json")
    verdicts = {one["cause"]: one["accused"] for one in json.loads(ran.stdout)["inspection"]["verdicts"]}
    assert verdicts.get("no common start") == ["near/5"], verdicts


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
