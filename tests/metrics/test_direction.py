"""Names of metrics tell whether more or less is better, or that nobody knows."""

from __future__ import annotations

import pytest

from soupcli.metrics.direction import direction_of


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("eval_loss", False),
        ("val/loss", False),
        ("valLoss", False),
        ("val_wer", False),
        ("cv_loss", False),
        ("eval_mae", False),
        ("top1", True),
        ("eval_accuracy", True),
        ("metrics/mAP50(B)", True),
        ("EvalF1", True),
        ("valid.acc.best", True),
        ("best_metric", None),
        ("metric", None),
        ("loss_or_accuracy", None),  # both are named
        ("lossless", None),  # a word is not a part of another word
        ("", None),
    ],
)
def test_direction(name: str, higher: bool | None) -> None:
    """A whole word of the name decides. Two that disagree, or none, decide nothing."""
    assert direction_of(name) is higher
