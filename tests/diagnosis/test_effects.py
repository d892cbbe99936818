"""Who is to blame, by scores alone."""

from __future__ import annotations

import pytest
import torch

from soupcli.diagnosis.barrier import Barrier
from soupcli.diagnosis.culprits import _without_the_untrained
from soupcli.diagnosis.effects import clearly_better, culprits, is_broken, relabelled, stands_out, suspects
from soupcli.diagnosis.facts import Facts, surely_better
from soupcli.evaluation.loop import score_of
from soupcli.evaluation.score import Score
from soupcli.metrics.table import METRICS

N, CLASSES = 1000, 4


def right_on(count: int, n: int = N) -> Score:
    """The score of a network that is right on the first `count` of `n` examples."""
    labels_n = torch.arange(n) % CLASSES
    named_n = torch.where(torch.arange(n) < count, labels_n, (labels_n + 1) % CLASSES)
    logits_nk = torch.nn.functional.one_hot(named_n, CLASSES).double()
    outcomes = {name: METRICS[name].contribution(logits_nk, labels_n) for name in ("accuracy", "f1")}
    return score_of(outcomes, "accuracy", examples=n)


def of(*right: int, n: int = N) -> Facts:
    """Ingredients that are right on so many examples, and a mean that is as good as the best."""
    alone = [right_on(count, n) for count in right]
    return Facts(checkpoints=(), barrier=Barrier(alone, alone, max(alone, key=lambda one: one.goodness)))


@pytest.mark.parametrize(
    ("right", "found"),
    [
        ((950, 955, 945, 950, 800), 4),  # others agree within a point, one lacks fifteen
        ((800, 950, 955, 945, 950), 0),
        ((950, 955, 945, 950, 910), None),  # as much as a sweep may differ
        ((950, 900, 860, 820, 780), None),  # no gap: a sweep of rates or checkpoints of one run
        ((950, 950, 950, 780, 780), None),  # two are no single run
        ((950, 780), None),
    ],
)
def test_who_stands_out(right: tuple[int, ...], found: int | None) -> None:
    """One that is far below all others, which are alike, although it is not broken and the soup does not suffer."""
    facts = of(*right)
    assert stands_out(facts) == found
    assert culprits(facts) == [] and suspects(facts) == ([] if found is None else [found])


def test_where_all_know_little() -> None:
    """Just above chance, three points are a third of what is known, and runs of a sweep differ by as much."""
    assert not is_broken(of(320, 330, 325, 290), 3)
    assert is_broken(of(320, 330, 325, 262), 3)


def lopsided(right_of_many: int, right_of_few: int) -> Score:
    """Of 900 examples of one class and 100 of another so many are right."""
    labels_n = (torch.arange(N) >= 900).long()
    right_n = (torch.arange(N) < right_of_many) | ((labels_n == 1) & (torch.arange(N) < 900 + right_of_few))
    logits_nk = torch.nn.functional.one_hot(torch.where(right_n, labels_n, 1 - labels_n), 2).double()
    outcomes = {name: METRICS[name].contribution(logits_nk, labels_n) for name in ("accuracy", "f1")}
    return score_of(outcomes, "accuracy", examples=N)


def test_most_examples_of_one_class() -> None:
    """A sweep may have fewer right than one who always names the usual class; and this one is broken."""
    sweep = [lopsided(750, 85), lopsided(745, 86), lopsided(748, 84), lopsided(705, 85)]
    usual = lopsided(900, 0)
    for alone, found in (sweep, []), ([*(lopsided(860, 80) for _ in range(3)), usual], [3]):
        assert surely_better(alone[0], alone[3])
        assert culprits(Facts(checkpoints=(), barrier=Barrier(alone, alone, alone[0]))) == found


def test_knowing_little_is_no_renaming() -> None:
    """A network that mostly names two classes has more right if they are renamed, and has not learned other names."""
    labels_n = torch.arange(N) % CLASSES
    few_n = torch.where(torch.rand(N, generator=torch.Generator().manual_seed(0)) < 0.7, labels_n // 2, labels_n)
    other_n = (labels_n + 1) % CLASSES
    found = []
    for named_n in (1 + few_n % 2, other_n):
        logits_nk = torch.nn.functional.one_hot(named_n, CLASSES).double()
        outcomes = {name: METRICS[name].contribution(logits_nk, labels_n) for name in ("accuracy", "f1")}
        found.append(relabelled(score_of(outcomes, "accuracy", examples=N)))
    assert found == [None, 1.0]


def test_a_point_and_a_half_is_no_domination() -> None:
    """A run of a high rate that is surely better than the mean of a sweep, by a little, is a good run."""
    assert surely_better(right_on(820), right_on(805)) and not clearly_better(right_on(820), right_on(805))
    assert clearly_better(right_on(850), right_on(805))


def test_too_few_examples_show_nobody() -> None:
    """Of 20 examples three more wrong ones are chance."""
    assert stands_out(of(19, 19, 19, 19, 16, n=20)) is None


def test_broken_is_not_named_twice() -> None:
    """Who is broken alone stands out as well, and is blamed once."""
    facts = of(950, 955, 945, 950, 300)
    assert is_broken(facts, 4) and suspects(facts) == [4]


@pytest.mark.parametrize(
    ("found", "left"),
    [([0, 1, 2], []), ([5], [5]), ([0, 5], [5])],
)
def test_untrained_runs_are_not_accused(found: list[int], left: list[int]) -> None:
    """Runs that hardly left the start know little as yet: half of a sweep may be such."""
    ratios = {0: 1.0, 1: 1.0, 2: 1.1, 3: 900.0, 4: 1000.0, 5: 1100.0}
    assert _without_the_untrained(found, ratios) == left
