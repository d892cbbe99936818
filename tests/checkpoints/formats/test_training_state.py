"""What belongs to a training, in files of strangers too."""

from __future__ import annotations

from soupcli.checkpoints.formats.training_state import is_optimizer, is_training_state

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
