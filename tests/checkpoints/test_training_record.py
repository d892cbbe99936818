"""Steps, epochs and metrics that trainers write into names and files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.training_record import TrainingRecord, order_by, record_of
from soupcli.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def about(path: Path) -> TrainingRecord:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({"w": torch.ones(1)}, path)
    else:
        torch.save({"w": torch.ones(1)}, path)
    return record_of(open_checkpoint(path))


@pytest.mark.parametrize(
    ("name", "step", "epoch", "metrics"),
    [
        ("epoch=3-step=500.ckpt", 500, 3, {}),
        ("epoch=12-val_loss=0.12.ckpt", None, 12, {"val_loss": 0.12}),
        ("model--val_wer=0.1033-epoch=9-last.ckpt", None, 9, {"val_wer": 0.1033}),
        ("val_loss=1e-3-epoch=7.ckpt", None, 7, {"val_loss": 0.001}),
        ("checkpoint-1000.pt", 1000, None, {}),
        ("step_2000.safetensors", 2000, None, {}),
        ("iter_0000150.pt", 150, None, {}),
        ("epoch_12.pt", None, 12, {}),
        ("12epoch.pth", None, None, {}),  # ESPnet's order of the two: not read, and not misread
        ("model.pt", None, None, {}),
        ("lr1e-5_seed0.pt", None, None, {}),  # a setting is no step
        ("resnet50.pt", None, None, {}),
    ],
)
def test_names(tmp_path: Path, name: str, step: int | None, epoch: int | None, metrics: dict[str, float]) -> None:
    """Lightning's and NeMo's pairs, steps and epochs by name; a number of something else is nothing."""
    assert about(tmp_path / name) == (step, epoch, metrics)


def test_trainer_state(tmp_path: Path) -> None:
    """transformers' own file goes over the folder's name."""
    folder = tmp_path / "checkpoint-7"
    log = [{"step": 5, "eval_loss": 3.0}, {"step": 10, "eval_loss": 2.0, "eval_runtime": 9.0}]
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 10, "epoch": 2.5, "log_history": log}))
    save_file({"w": torch.ones(1)}, folder / "model.safetensors")
    assert record_of(open_checkpoint(folder)) == (10, 2, {"eval_loss": 2.0})


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"global_step": "x", "epoch": [1]}', "\x00"])
def test_broken_trainer_state(tmp_path: Path, text: str) -> None:
    """A file that says nothing readable leaves what the name says."""
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(text)
    save_file({"w": torch.ones(1)}, folder / "model.safetensors")
    assert record_of(open_checkpoint(folder)) == (7, None, {})


def test_wenet(tmp_path: Path) -> None:
    """wenet writes a YAML file beside each checkpoint."""
    (tmp_path / "epoch_3.yaml").write_text(yaml.safe_dump({"epoch": 3, "step": 900, "loss_dict": {"cv_loss": 4.5}}))
    assert about(tmp_path / "epoch_3.pt") == (900, 3, {"cv_loss": 4.5})


@pytest.mark.parametrize(
    ("word", "metric", "higher"), [("eval_loss", "eval_loss", False), ("-metric", "metric", False), ("+x", "x", True)]
)
def test_order_by(word: str, metric: str, higher: bool) -> None:
    """The name tells the direction, a sign goes over it."""
    assert order_by(word) == (metric, higher)


def test_unknown_direction() -> None:
    """Where nobody knows, the error gives both spellings."""
    with pytest.raises(UsageError, match="whether more or less") as refused:
        order_by("best_metric")
    assert refused.value.hint == "--by=-best_metric if lower is better, --by=+best_metric if higher is"
