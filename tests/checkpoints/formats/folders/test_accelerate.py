"""Accelerate's folders of several networks: all are mixed, and its load_state opens the soup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from soupcli.checkpoints.formats.folders.accelerate import networks_of
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import assert_same, small_net
from tests.helpers.means import mean64


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("format_", ["same", "safetensors"])
def test_soup(
    tmp_path: Path, soup: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, safe: bool, format_: str
) -> None:
    """Its own save_state and load_state of two networks with equal names, with and without their optimizers."""
    accelerate: Any = pytest.importorskip("accelerate", reason="accelerate is not installed")
    monkeypatch.chdir(tmp_path)

    def prepared(seed: int, *, training: bool = True) -> tuple[Any, list[nn.Module]]:
        accelerator, nets = accelerate.Accelerator(cpu=True), [small_net(seed), small_net(seed + 10)]
        optimizers = [torch.optim.AdamW(net.parameters()) for net in nets] if training else []
        return accelerator, accelerator.prepare(*nets, *optimizers)[:2]

    for seed in range(2):
        prepared(seed)[0].save_state(f"runs/{seed}", safe_serialization=safe)
    names = {file.name for file in open_checkpoint(Path("runs/0")).folder.iterdir()}
    for training in (False, True):
        words = ("--keep-state",) if training else ()
        ran = soup("uniform", "--ckpts", "runs/*/", "--format", format_, "--force", *words)
        assert ran.code == 0, ran.stderr
        accelerator, nets = prepared(5, training=training)
        accelerator.load_state("soup")
        for net, first in zip(nets, (0, 10), strict=True):
            assert_same(net.state_dict(), mean64([small_net(first + seed).state_dict() for seed in range(2)]))
    if format_ == "same":
        assert {file.name for file in Path("soup").iterdir()} == {*names, "README.md", "soup.json"}
    assert soup("verify", "soup", "--rebuild").code == 0
    assert len(open_checkpoint(Path("soup")).parts) == 2


def test_what_is_no_folder_of_several(tmp_path: Path) -> None:
    """Numbers alone say nothing, one network is one, and networks that FSDP has cut are refused."""
    for name in ("model.safetensors", "model_1.safetensors", "model_3.safetensors"):
        save_file(small_net().state_dict(), tmp_path / name)
    assert networks_of(tmp_path) == []
    (tmp_path / "random_states_0.pkl").write_bytes(b"")
    assert [file.name for file in networks_of(tmp_path)] == ["model.safetensors", "model_1.safetensors"]
    (tmp_path / "model_1.safetensors").unlink()
    assert networks_of(tmp_path) == []
    (tmp_path / "pytorch_model_fsdp_1").mkdir()
    (tmp_path / "pytorch_model_fsdp_1/.metadata").write_bytes(b"")
    with pytest.raises(CheckpointError, match="several networks, each a distributed checkpoint"):
        networks_of(tmp_path)
