"""Settings of networks and of their inputs are found among those of a training, wherever a trainer writes them."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from soupcli.checkpoints.formats.own_settings import settings_in
from soupcli.checkpoints.formats.setting_words import kind_of
from soupcli.checkpoints.open import open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("image_size", "inputs"),
        ("data.sample_rate", "inputs"),
        ("model.norm_eps", "network"),
        ("transforms.mean", "inputs"),
        ("mean.0", "inputs"),
        ("augmentation.mean", None),
        ("data.train.image_size", None),
        ("args.init_std", None),
        ("args." + "x" * 300, None),
    ],
)
def test_kinds(key: str, kind: str | None) -> None:
    """A key is told by its last part, and by the parts above it if these are a training's."""
    assert kind_of(key) == kind
