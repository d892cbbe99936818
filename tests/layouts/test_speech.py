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


@pytest.mark.filterwarnings("ignore")
def test_nemo(soup: Soup) -> None:
    """A ModelPT's own save_to writes .nemo files, and its restore_from opens the soup, artifacts included."""
    core: Any = pytest.importorskip(
        "nemo.core.classes.modelPT", reason="make layouts installs it", exc_type=ImportError
    )
    config: Any = pytest.importorskip("omegaconf")

    class Model(core.ModelPT):  # type: ignore[misc]
        def __init__(self, cfg: Any, trainer: Any = None) -> None:
            super().__init__(cfg, trainer)
            self.words = Path(self.register_artifact("words", cfg.words)).read_text()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

        def setup_training_data(self, cfg: Any) -> None: ...

        def setup_validation_data(self, cfg: Any) -> None: ...

        @classmethod
        def list_available_models(cls) -> None: ...

    Path("words.txt").write_text("good soup")
    made = []
    for seed in range(2):
        torch.manual_seed(seed)
        made.append(Model(config.OmegaConf.create({"words": "words.txt", "seed": seed})))
        Path(f"runs/{seed}").mkdir(parents=True)
        made[-1].save_to(f"runs/{seed}/model.nemo")
    Path("words.txt").unlink()
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    opened = Model.restore_from("soup/model.nemo", map_location="cpu", override_config_path=None)
    load_mean(expected := nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), [one.net for one in made])
    inputs = torch.randn(5, 4)
    assert torch.equal(opened.net.eval()(inputs), expected.eval()(inputs))
    assert opened.words == "good soup"


def save_icefall(net: nn.Module, averaged: nn.Module, file: str) -> None:
    """The dict of icefall/checkpoint.py: save_checkpoint, which no package holds."""
    optimizer = torch.optim.AdamW(net.parameters())
    checkpoint: dict[str, Any] = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {"epoch": 1, "batch": 7},
        "grad_scaler": None,
        "sampler": None,
        "model_avg": averaged.to(torch.float64).state_dict(),
    }
    params = {"exp_dir": Path("exp"), "batch_idx_train": 7, "best_train_loss": float("inf")}
    assert not any(key in checkpoint for key in params)
    torch.save({**checkpoint, **params}, file)


def net_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def test_icefall(soup: Soup) -> None:
    """`model_avg`, a float64 mean of the training, is mixed; load_checkpoint's keys are all there."""
    Path("exp").mkdir()
    averaged = [net_of(10 + seed) for seed in range(2)]
    for seed in range(2):
        save_icefall(net_of(seed), averaged[seed], f"exp/epoch-{seed}.pt")
    ran = soup("uniform", "--ckpts", "exp/*.pt")
    assert ran.code == 0 and "'model_avg', which holds averaged ones" in ran.stderr
    [file] = Path("soup").glob("*.pt")
    opened = torch.load(file, weights_only=False)
    found, expected = net_of(0).double(), net_of(0).double()
    found.load_state_dict(opened["model_avg"], strict=True)
    load_mean(expected, averaged)
    inputs = torch.randn(5, 4).double()
    torch.testing.assert_close(found.eval()(inputs), expected.eval()(inputs), rtol=0, atol=1e-15)
    assert opened["exp_dir"] == Path("exp") and "optimizer" not in opened


@pytest.mark.parametrize(("name", "settings"), [("epoch_{}.pt", "epoch_{}.yaml"), ("{}epoch.pth", "config.yaml")])
def test_bare_state_dicts_with_settings(soup: Soup, name: str, settings: str) -> None:
    """wenet and ESPnet torch.save a bare state dict and open nothing else: so is the soup."""
    made = [net_of(seed) for seed in range(3)]
    for seed, net in enumerate(made):
        Path(f"exp/{seed}").mkdir(parents=True)
        torch.save(net.state_dict(), f"exp/{seed}/{name.format(1)}")
        Path(f"exp/{seed}/{settings.format(1)}").write_text("epoch: 1")
    assert soup("uniform", "--ckpts", "exp/*/").code == 0
    found = net_of(0)
    found.load_state_dict(torch.load(f"soup/{name.format(1)}", map_location="cpu", mmap=True), strict=True)
    load_mean(expected := net_of(0), made)
    inputs = torch.randn(5, 4)
    assert torch.equal(found.eval()(inputs), expected.eval()(inputs))
