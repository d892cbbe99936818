"""Speech libraries: the real library writes the ingredients and opens the soup, with equal outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import Ran
from tests.helpers.means import load_mean

Soup = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recoverables() -> dict[str, Any]:
    """An encoder, a decoder, a normaliser, an optimizer, a schedule and a counter, as a recipe of speechbrain has."""
    features = pytest.importorskip("speechbrain.processing.features", reason="make layouts installs it")
    epochs = pytest.importorskip("speechbrain.utils.epoch_loop")
    schedulers = pytest.importorskip("speechbrain.nnet.schedulers")
    encoder, decoder = nn.LSTM(4, 8, batch_first=True), nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5))
    normalizer = features.InputNormalization(norm_type="global")
    normalizer(torch.randn(3, 7, 4), torch.ones(3))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()])
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return {
        "encoder": encoder,
        "decoder": decoder,
        "normalizer": normalizer,
        "noam": schedulers.NoamScheduler(1e-3, 10),
        "counter": epochs.EpochCounter(5),
        "opt": optimizer,
    }


def test_speechbrain(soup: Soup) -> None:
    """All networks of CKPT+* folders are mixed; its Checkpointer recovers the soup, the optimizer only if kept."""
    checkpoints: Any = pytest.importorskip("speechbrain.utils.checkpoints", reason="make layouts installs it")
    made = []
    for seed in range(3):
        torch.manual_seed(seed)
        made.append(recoverables())
        checkpoints.Checkpointer(f"save/{seed}", made[-1]).save_checkpoint(name="best", meta={"WER": 5.0 + seed})
    words = ("uniform", "--ckpts", "save/*/CKPT+best")
    ran = soup(*words, "--out", "soups/CKPT+soup")
    assert ran.code == 0 and "opt.ckpt: training state, left out (--keep-state keeps it)" in ran.stderr
    expected = recoverables()
    for name in ("encoder", "decoder"):
        load_mean(expected[name], [one[name] for one in made])
    found = recoverables()
    optimizer = found.pop("opt")
    assert checkpoints.Checkpointer("soups", found).recover_if_possible() is not None
    sound = torch.randn(2, 6, 4)
    hidden = [one["encoder"](sound)[0][:, -1] for one in (found, expected)]
    outputs = [one["decoder"].eval()(state) for one, state in zip((found, expected), hidden, strict=True)]
    assert torch.equal(outputs[0], outputs[1])
    means = torch.stack([one["normalizer"].glob_mean.double() for one in made]).mean(dim=0)
    torch.testing.assert_close(found["normalizer"].glob_mean.double(), means)
    assert soup(*words, "--out", "kept/CKPT+soup", "--keep-state").code == 0
    whole = {**found, "opt": optimizer}
    assert checkpoints.Checkpointer("kept", whole).recover_if_possible() is not None
    assert soup("verify", "soups/CKPT+soup", "--rebuild").code == 0
    assert soup(*words, "--format", "safetensors", "--out", "plain").code == 0
    assert {"encoder.safetensors", "decoder.safetensors"} <= {file.name for file in Path("plain").iterdir()}


def test_speechbrain_one_network(soup: Soup) -> None:
    """A folder with one network keeps that network's own names."""
    checkpoints: Any = pytest.importorskip("speechbrain.utils.checkpoints", reason="make layouts installs it")
    nets = [nn.Linear(3, 2) for _ in range(2)]
    for number, net in enumerate(nets):
        checkpoints.Checkpointer(f"save/{number}", {"model": net}).save_checkpoint(name="a")
    assert soup("uniform", "--ckpts", "save/*/CKPT+a", "--include", "weight", "--out", "soups/CKPT+soup").code == 0
    found = nn.Linear(3, 2)
    checkpoints.Checkpointer("soups", {"model": found}).recover_if_possible()
    expected = torch.stack([net.weight.double() for net in nets]).mean(dim=0).float()
    assert torch.equal(found.weight, expected) and torch.equal(found.bias, nets[0].bias)
