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
