"""What belongs to a training, in files of strangers too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from soupcli.checkpoints.formats.training_state import is_optimizer, is_training_state
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError

ADAM: dict[str, object] = {"state": {}, "param_groups": []}
WIDTH = 300


def test_one_object_in_many_places() -> None:
    """A small pickle may hold a few objects in 10^7 places: each is looked at once."""
    training: object = ADAM
    for _ in range(3):
        several = {f"part {number}": training for number in range(WIDTH)}
        training = {"adam": ADAM, "scheduler": {"last_epoch": 1}, **several}
    assert is_training_state("x", training) and not is_optimizer(training)
    assert not is_training_state("x", {"a": training, "queue": [1]})


def test_scalers_of_gradients_and_of_inputs() -> None:
    """A gradient scaler is training state; one that was fitted to inputs or outputs is not, in whatever form."""
    gradients = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}
    assert is_training_state("scaler", gradients) and is_training_state("amp_scaler", {"loss_scaler0": gradients})
    for fitted in ({"mean": 1.0, "std": 2.0}, {"x": {"mean_": [1.0]}, "y": {"mean_": [2.0]}}, {"data_min_": [0.0]}):
        assert not is_training_state("scaler", fitted) and not is_training_state("y_scalers", fitted)


@pytest.mark.parametrize("key", ["cpu", "torch"])
def test_random_states(tmp_path: Path, key: str) -> None:
    """States of generators are known by their form, whatever an own loop calls them, as poutyne's .randomstate does."""
    of_gpus = [torch.zeros(16, dtype=torch.uint8)] * 2
    torch.save({key: torch.get_rng_state(), "gpus": of_gpus, "python": (3, 1)}, tmp_path / "checkpoint.randomstate")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_checkpoint(tmp_path)
    torch.save({"model": {"w": torch.ones(2)}, key: torch.get_rng_state(), "gpus": of_gpus}, tmp_path / "last.pt")
    opened = open_checkpoint(tmp_path)
    assert set(opened.tensors) == {"w"} and opened.origin.notes == ()


@pytest.mark.parametrize("table", [torch.zeros(5056), torch.zeros(5055, dtype=torch.uint8)])
def test_no_random_state(tmp_path: Path, table: torch.Tensor) -> None:
    """Other vectors under such a name are a network's."""
    torch.save({"cpu": table}, tmp_path / "a.pt")
    assert set(open_checkpoint(tmp_path).tensors) == {"cpu"}
