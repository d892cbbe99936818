"""Settings of networks and of their inputs are found among those of a training, wherever a trainer writes them."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from soupcli.checkpoints.formats import own_settings
from soupcli.checkpoints.formats.own_settings import settings_in
from soupcli.checkpoints.formats.setting_words import kind_of
from soupcli.checkpoints.open import open_checkpoint
from tests.helpers.temporary_modules import module_of

if TYPE_CHECKING:
    from pathlib import Path


class Compose:
    """A pipeline of transforms, as torchvision has it."""

    def __init__(self, transforms: list[object]) -> None:
        self.transforms = transforms


class Resize:
    def __init__(self, size: int) -> None:
        self.size = size


class Scaler:
    """An object with statistics, as scikit-learn's StandardScaler has them."""

    def __init__(self, mean: float) -> None:
        self.mean_, self.n_samples_seen_ = np.full(3, mean), 7


FOUND: dict[str, tuple[dict[str, Any], str]] = {
    "ultralytics": ({"train_args": {"imgsz": 640, "lr0": 0.01, "scale": 0.5}}, "train_args.imgsz"),
    "YOLOv5": ({"opt": {"imgsz": 640, "data": "a.yaml"}}, "opt.imgsz"),
    "arguments": ({"args": Namespace(img_size=224, lr=1, output="x")}, "args.img_size"),
    "Lightning": ({"hyper_parameters": {"activation": "relu", "seed": 1}}, "hyper_parameters.activation"),
    "nested": ({"cfg": {"model": {"n_head": 4}, "optimizer": {"eps": 1}}}, "cfg.model.n_head"),
    "tensor": ({"mean": torch.zeros(3), "epoch": 1}, "mean"),
    "array": ({"y_std": np.ones(3)}, "y_std"),
    "scalar of numpy": ({"target_mean": np.float32(1.5)}, "target_mean"),
    "normalizer": ({"normalizer": {"q01": [1.0], "max": [2.0]}}, "normalizer.max normalizer.q01"),
    "object": ({"scaler_x": Scaler(1.0)}, "scaler_x.mean_"),
    "a module's class": ({"args": {"act_layer": torch.nn.GELU, "act": torch.nn.ReLU()}}, "args.act args.act_layer"),
    "transforms": ({"transform": Compose([Resize(224)])}, "transform.transforms.0.size"),
    "nanoGPT": ({"model_args": {"parallel": True, "dropout": 0.1, "n_class": 2}}, "model_args.parallel"),
    "none": ({"args": {"mixup": 1, "train_crop_size": 3, "workers": 2, "optim_eps": 1, "val_resize_size": 4}}, ""),
    "a path": ({"args": {"model": "runs/1/last.pt"}}, ""),
    "measures": ({"stats": {"best_acc": 1, "loss_mean": 2}, "metrics": {"mean": 3}}, ""),
}


@pytest.mark.parametrize("kind", FOUND)
def test_found(kind: str, tmp_path: Path) -> None:
    """Settings that change what the weights compute are found in a file of torch.save, those of a training are not."""
    said, keys = FOUND[kind]
    torch.save({"state_dict": {"w": torch.zeros(2), "mean": torch.zeros(3)}, **said}, tmp_path / "a.pt")
    assert " ".join(sorted(open_checkpoint(tmp_path / "a.pt").origin.settings)) == keys


def network(activation: torch.nn.Module, stride: int = 1, heads: int = 2, dropout: float = 0.0) -> torch.nn.Module:
    block = torch.nn.Sequential(torch.nn.Conv1d(2, 2, 3, stride), activation, torch.nn.Dropout(dropout))
    return torch.nn.ModuleDict({"block": block, "attend": torch.nn.MultiheadAttention(4, heads)})


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("other", "differing"),
    [
        (network(torch.nn.GELU()), "block.1.activation approximate"),
        (network(torch.nn.LeakyReLU(0.2)), "block.1.activation negative_slope"),
        (network(torch.nn.ReLU(), stride=2), "block.0.stride"),
        (network(torch.nn.ReLU(), heads=1), "attend.num_heads"),
        (network(torch.nn.ReLU(inplace=True), dropout=0.5), ""),
    ],
)
def test_layers_of_modules(tmp_path: Path, other: torch.nn.Module, differing: str, *, inside: bool) -> None:
    """A whole module says what each layer of torch's computes; its dropout matters only while it is trained."""
    for number, module in enumerate((network(torch.nn.ReLU()), other)):
        torch.save({"model": module, "epoch": number} if inside else module, tmp_path / f"{number}.pt")
    one, two = (open_checkpoint(tmp_path / f"{number}.pt").origin.settings for number in range(2))
    found = [key for key in one if key in two and one[key] != two[key]]
    assert found == [f"{'model.' if inside else ''}{key}" for key in differing.split()[:1]]


def test_behind_many_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of a large network do not count among the entries that are looked at."""
    monkeypatch.setattr(own_settings, "MOST", 10)
    state = {f"w{number}": torch.zeros(1) for number in range(40)}
    torch.save({"state_dict": state, "ema": state, "args": {"sr": 16000}, "x": {"y": {"sr": 8000}}}, tmp_path / "a.pt")
    assert open_checkpoint(tmp_path / "a.pt").origin.settings == {"args.sr": "16000", "x.y.sr": "8000"}


def test_values() -> None:
    """Equal values are equal texts, long lists are told by their hash, and of a name its tag of weights is left out."""
    found = settings_in({"mean": [0.5, 1], "x_std": list(range(99)), "arch": "vit_b.augreg", "sr": None})
    assert found == {
        "mean": "[0.5, 1]",
        "x_std": settings_in({"x_std": [*range(99)]})["x_std"],
        "arch": '"vit_b"',
        "sr": "null",
    }
    assert found["x_std"].startswith("99 values, sha256:")
    assert settings_in({"arch": "my/net.yaml", "sr": [[1]], "fps": {"train": 3}}) == {}


class DictConfig:
    """Stands for omegaconf's, whose content lies in one attribute; each value is a node."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._parent, self._content = None, content


class ListConfig(DictConfig):
    def __init__(self, content: Any) -> None:
        super().__init__(content)


class AnyNode:
    def __init__(self, value: Any) -> None:
        self._parent, self._val = None, value


def of_omegaconf(value: Any) -> Any:
    if isinstance(value, dict):
        return DictConfig({key: of_omegaconf(inner) for key, inner in value.items()})
    return ListConfig([*map(of_omegaconf, value)]) if isinstance(value, list) else AnyNode(value)


def test_omegaconf(tmp_path: Path) -> None:
    """Classes, inputs and settings are found in the configuration that Hydra's users save in their checkpoints."""
    config = {"model": {"act": "relu", "lr": 0.1}, "labels": ["cat", "dog"], "features": ["a", "b"], "mean": [1, 2]}
    with module_of("omegaconf.nodes", AnyNode=AnyNode, DictConfig=DictConfig, ListConfig=ListConfig):
        saved = {"state_dict": {"w": torch.zeros(2)}, "hyper_parameters": of_omegaconf(config)}
        torch.save(saved, tmp_path / "a.ckpt")
    origin = open_checkpoint(tmp_path / "a.ckpt").origin
    assert origin.classes == {"hyper_parameters.labels": ["cat", "dog"]}
    assert origin.inputs == {"hyper_parameters.features": ["a", "b"]}
    assert origin.settings == {"hyper_parameters.model.act": '"relu"', "hyper_parameters.mean": "[1, 2]"}


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("image_size", "inputs"),
        ("data.sample_rate", "inputs"),
        ("frontend_conf.fs", "inputs"),
        ("dataset_conf.resample_conf.resample_rate", "inputs"),
        ("preprocessor.window", "inputs"),
        ("kwargs.sources", "network"),
        ("data.sources", None),
        ("data.mel_fmax", "inputs"),
        ("model.norm_eps", "network"),
        ("transforms.mean", "inputs"),
        ("mean.0", "inputs"),
        ("augmentation.mean", None),
        ("data.train.image_size", None),
        ("args.init_std", None),
        ("model.init_args.activation", "network"),
        ("data.init_args.image_size", "inputs"),
        ("model.init_args.init_std", None),
        ("optimizer.init_args.activation", None),
        ("trainer.callbacks.init_args.image_size", None),
        ("model_params.init_params.gamma", "network"),
        ("model_params.init_params.momentum", None),
        ("model_params.init_params.optimizer_params.betas", None),
        ("model_config.run_name", None),
        ("model_config.mlp_class", "network"),
        ("config.INPUT.FORMAT", "inputs"),
        ("log.format", None),
        ("backbone.act_cfg.type", "network"),
        ("backbone.norm_cfg.type", None),
        ("size", None),
        ("args." + "x" * 300, None),
    ],
)
def test_kinds(key: str, kind: str | None) -> None:
    """A key is told by its last part, and by the parts above it if these are a training's."""
    assert kind_of(key) == kind
