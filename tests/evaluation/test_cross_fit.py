"""The best ingredient without the luck of being picked: on simulated examples it is what a pick is worth elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from soupcli.evaluation.compare import Side, best_side, compare
from soupcli.evaluation.cross_fit import cross_fitted
from soupcli.evaluation.loop import score_of
from soupcli.evaluation.score import Score
from soupcli.metrics.metric import MetricValue


def right(share: float, n: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(n, generator=generator) < share).to(torch.uint8)


def scored(outcomes: Tensor) -> Score:
    return score_of({"accuracy": outcomes}, "accuracy", examples=len(outcomes))


def test_takes_the_luck_away() -> None:
    """Twelve equally good ingredients: the best is some points too good, the cross-fitted one as good as they are."""
    generator, flattered, fair = torch.Generator().manual_seed(0), [], []
    for _ in range(200):
        scores = [scored(right(0.8, 100, generator)) for _ in range(12)]
        found = cross_fitted(scores)
        assert found is not None
        flattered.append(max(score.value for score in scores))
        fair.append(found.value)
    assert sum(flattered) / 200 > 0.84
    assert sum(fair) / 200 == pytest.approx(0.8, abs=0.01)


def test_its_interval_holds() -> None:
    """Of equally good networks the 95% interval holds 0 in nine of ten samples or more, as if fewer were counted."""
    generator, told = torch.Generator().manual_seed(5), list[bool]()
    for _ in range(120):
        hard_n1 = 0.97 * torch.randn(400, 1, generator=generator)
        right_nk = (hard_n1 + 0.243 * torch.randn(400, 11, generator=generator) < 0.84).to(torch.uint8)
        *scores, soup = (scored(right_n) for right_n in right_nk.unbind(dim=1))
        side = best_side("best", {"val": scores[0]}, "val", scores, fair=True)
        [found] = compare(Side("soup", {"val": soup}), side)
        assert found.low is not None and found.high is not None and found.p is not None
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
        told.append(found.low <= 0 <= found.high)
    assert sum(told) >= 0.9 * len(told)


def test_keeps_who_is_better() -> None:
    """An ingredient that is better everywhere is the best of every fold."""
    generator = torch.Generator().manual_seed(0)
    best = scored(right(0.95, 300, generator))
    found = cross_fitted([scored(right(0.6, 300, generator)), best, scored(right(0.7, 300, generator))])
    assert found is not None and torch.equal(found.outcomes["accuracy"], best.outcomes["accuracy"])
    assert (found.value, found.selecting) == (best.value, "accuracy")


@pytest.mark.parametrize(
    "scores",
    [
        [],
        [scored(torch.ones(50, dtype=torch.uint8))],
        [scored(torch.ones(10, dtype=torch.uint8))] * 2,
        [Score({"accuracy": MetricValue(0.5, None, None)}, "accuracy", True, 0, {})] * 2,
        [scored(torch.ones(50, dtype=torch.uint8)), scored(torch.ones(60, dtype=torch.uint8))],
    ],
    ids=["none", "one", "few examples", "no examples", "other examples"],
)
def test_nothing_to_choose(scores: list[Score]) -> None:
    """Without several ingredients on the same known examples there is none."""
    assert cross_fitted(scores) is None


def test_comparison_says_so() -> None:
    """A soup that was not selected is compared with the cross-fitted best on the set that picked it, and only there."""
    generator = torch.Generator().manual_seed(0)
    scores = [scored(right(0.8, 100, generator)) for _ in range(5)]
    best = max(scores, key=lambda score: score.value)
    soup = Side("soup", {"val": scores[0], "test": scores[1]})
    side = best_side("best", {"val": best, "test": scores[2]}, "val", scores, fair=True)
    on_val, on_test = compare(soup, side)
    assert (on_val.cross_fitted, on_test.cross_fitted) == (True, False)
    assert on_val.difference is not None and on_val.difference > scores[0].value - best.value
    selected = best_side("best", {"val": best}, "val", scores, fair=False)
    [of_selected] = compare(soup, selected, tried={"val": 17})
    assert (of_selected.cross_fitted, of_selected.tried) == (False, 17)
    assert of_selected.difference == scores[0].value - best.value
