"""Whether one ingredient is odd, by scores and angles."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from soupcli.diagnosis.barrier import Barrier
from soupcli.diagnosis.basins import too_far
from soupcli.diagnosis.causes import CAUSES, judge
from soupcli.diagnosis.culprits import other_inputs, spoiling
from soupcli.diagnosis.facts import Facts
from soupcli.diagnosis.layer_angles import LayerAngles
from soupcli.diagnosis.spread import WeightDistances
from soupcli.evaluation.loop import score_of
from soupcli.evaluation.score import Score
from soupcli.metrics.table import METRICS

N, CLASSES = 1000, 4


def scattered(count: int) -> Score:
    """The score of a network that is right on the first `count` examples, and else names any other class."""
    at_n = torch.arange(N)
    labels_n = at_n % CLASSES
    named_n = torch.where(at_n < count, labels_n, (labels_n + 1 + at_n // CLASSES % 3) % CLASSES)
    logits_nk = torch.nn.functional.one_hot(named_n, CLASSES).double()
    outcomes = {name: METRICS[name].contribution(logits_nk, labels_n) for name in ("accuracy", "f1")}
    return score_of(outcomes, "accuracy", examples=N)


def apart(degrees: float, *right: int, mean: int) -> Facts:
    """Ingredients at one angle to one another, which moved as far, that are right on so many examples."""
    count = len(right)
    angle_kk, ones_k = torch.full((count, count), degrees).fill_diagonal_(0.0), torch.ones(count)
    spread = WeightDistances(
        layers=["body"],
        angle_lkk=LayerAngles([angle_kk]),
        whole_kk=angle_kk,
        distance_kk=angle_kk,
        from_mean_k=ones_k,
        length_k=ones_k,
        length_lk=ones_k[None],
        moved_lk=ones_k[None],
        from_base_k=None,
        offset_kk=None,
        base_angle_k=None,
        scatter={},
    )
    located: Any = [SimpleNamespace(path=f"runs/{number}", is_adapter=False) for number in range(count)]
    alone = [scattered(each) for each in right]
    return Facts(checkpoints=located, located=located, spread=spread, barrier=Barrier(alone, alone, scattered(mean)))


def test_none_is_odd_where_all_are_apart() -> None:
    """The worst of runs that all left their basin is not trained on other inputs: they are too far apart."""
    right = (420, 410, 415, 260, 405)
    together, far = (apart(degrees, *right, mean=350) for degrees in (5.0, 60.0))
    found = other_inputs(together)
    assert found is not None and [one.path for one in found.accused] == [together.located[3].path]
    assert too_far(together) is None
    assert other_inputs(far) is None and too_far(far) is not None


def without(facts: Facts, *right: int) -> Facts:
    """The same ingredients, with the scores of the mean without each of them."""
    assert facts.barrier is not None
    return replace(facts, barrier=facts.barrier._replace(without=[scattered(count) for count in right]))


def test_one_that_spoils_the_soup_is_never_passed_over() -> None:
    """It is told by its effect alone if nothing tells why, and not twice if a cause is known."""
    wide, near = (apart(degrees, 900, 910, 905, 500, 895, mean=860) for degrees in (40.0, 5.0))
    regained = (850, 845, 855, 910, 850)
    found = spoiling(without(wide, *regained))
    assert found is not None and [one.path for one in found.accused] == ["runs/3"]
    assert "without it 0.9100" in found.text
    assert spoiling(without(wide, 850, 845, 855, 865, 850)) is None
    assert spoiling(wide) is None
    told = [each.cause.name for each in judge(without(near, *regained))]
    assert told == ["trained on other inputs"]
    assert {cause.find: cause.name for cause in CAUSES}[spoiling] == "one ingredient spoils the soup"
