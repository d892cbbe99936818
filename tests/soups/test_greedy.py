"""Recipe 1 of the paper, against the recipe as it is printed, over tables of outcomes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.datasets.examples import ArrayExamples
from soupcli.errors import ValidationError
from soupcli.evaluation import loop as in_process
from soupcli.evaluation.batches import BatchSize
from soupcli.evaluation.hardest_first import Difficulty
from soupcli.evaluation.score import Score, Stopped
from soupcli.mixing.mixture import Mixture
from soupcli.soups.greedy import GreedySoup, greedy
from soupcli.soups.ranking import rank
from tests.helpers.outcomes import TableEvaluate, checkpoints, random_outcomes, recipe_1, score_of

Accept = Literal[">=", ">"]
GRID = [k / 8 for k in range(9)]  # sums of these and of a margin of 1/8 are exact


def cook(
    names: list[str],
    value: Callable[[frozenset[str]], float],
    *,
    higher: bool = True,
    accept: Accept = ">=",
    min_delta: float = 0.0,
) -> GreedySoup:
    evaluate = TableEvaluate(value, higher=higher)
    return greedy(rank(checkpoints(names), evaluate), evaluate, accept=accept, min_delta=min_delta)


def members_of(soup: GreedySoup) -> list[str]:
    return [str(member.path) for member in soup.mixture.members]


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 9),
    higher=st.booleans(),
    accept=st.sampled_from([">=", ">"]),
    min_delta=st.sampled_from([0.0, 0.125, 0.25]),
    rare=st.sampled_from([[], [math.nan], [math.nan, math.inf, -math.inf]]),
)
def test_equals_the_paper(
    seed: int, count: int, higher: bool, accept: Accept, min_delta: float, rare: list[float]
) -> None:
    """Members and their order are those of Recipe 1, for any outcomes, ties, margin and direction, NaN and infinity."""
    value = random_outcomes(seed, [*GRID, *rare])
    names = list("abcdefghi"[:count])
    if all(math.isnan(value(frozenset([name]))) for name in names):
        return
    soup = cook(names, value, higher=higher, accept=accept, min_delta=min_delta)
    assert members_of(soup) == recipe_1(names, value, higher=higher, accept=accept, min_delta=min_delta)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), higher=st.booleans())
def test_never_worse_than_the_best(seed: int, count: int, higher: bool) -> None:
    """On the selecting set the soup is at least as good as the best ingredient, and scores what its members score."""
    value = random_outcomes(seed, GRID)
    names = list("abcdefghi"[:count])
    soup = cook(names, value, higher=higher)
    alone = [value(frozenset([name])) for name in names]
    assert soup.score.value == value(frozenset(members_of(soup)))
    assert soup.score.value >= max(alone) if higher else soup.score.value <= min(alone)


@given(seed=st.integers(0, 10_000), order=st.permutations("abcdef"))
def test_order_of_ingredients(seed: int, order: list[str]) -> None:
    """The order in which ingredients are given changes nothing."""
    value = random_outcomes(seed, GRID)
    assert members_of(cook(order, value)) == members_of(cook(sorted(order), value))


def test_equal_is_kept_or_not() -> None:
    """A candidate that changes nothing is kept by `>=`, the paper, and left out by `>`, the authors' code."""
    assert members_of(cook(["a", "b"], lambda members: 0.5)) == ["a", "b"]
    assert members_of(cook(["a", "b"], lambda members: 0.5, accept=">")) == ["a"]


@pytest.mark.parametrize(("accept", "kept"), [(">=", ["a", "b"]), (">", ["a"])])
def test_margin(accept: Accept, kept: list[str]) -> None:
    """A gain of exactly min_delta is enough for `>=` and not for `>`; less is never enough."""
    value = {"a": 0.5, "b": 0.25, "c": 0.125, "ab": 0.75, "ac": 0.625, "abc": 0.875}
    soup = cook(["a", "b", "c"], lambda m: value["".join(sorted(m))], accept=accept, min_delta=0.25)
    assert members_of(soup) == kept


def test_lower_is_better() -> None:
    """Where lower is better a lower score is kept, and thresholds stand in the metric's own units."""
    value = {"a": 0.5, "b": 0.6, "c": 0.7, "ab": 0.4, "abc": 0.45}
    soup = cook(["a", "b", "c"], lambda m: value["".join(sorted(m))], higher=False)
    assert members_of(soup) == ["a", "b"]
    assert [(step.score, step.threshold) for step in soup.steps] == [(0.5, None), (0.4, 0.5), (0.45, 0.4)]


def test_steps() -> None:
    """Every candidate has a step, in order, with score, threshold, decision and reason."""
    value = {"a": 0.5, "b": 0.4, "c": 0.3, "d": 0.2, "e": 0.1}
    value |= {"ab": 0.5, "abc": 0.6, "abcd": math.nan, "abce": 0.2}
    soup = cook(list("abcde"), lambda m: value["".join(sorted(m))])
    found = [(str(s.candidate.path), s.threshold, s.accepted, s.reason, s.examples) for s in soup.steps]
    assert found == [
        ("a", None, True, "start", 10),
        ("b", 0.5, True, "equal", 10),
        ("c", 0.5, True, "better", 10),
        ("d", 0.6, False, "not a number", 10),
        ("e", 0.6, False, "worse", 10),
    ]
    assert members_of(soup) == ["a", "b", "c"]


def test_not_better() -> None:
    """Equality under `>` is reported as what it is."""
    assert cook(["a", "b"], lambda members: 0.5, accept=">").steps[1].reason == "not better"


def test_all_nan() -> None:
    """Where no score is a number there is no best ingredient and no soup."""
    said = r"^metric: not a number for any of the 2 checkpoints, so none is the best$"
    with pytest.raises(ValidationError, match=said):
        cook(["a", "b"], lambda members: math.nan)


def test_the_start_is_measured() -> None:
    """The start is evaluated by the same evaluator, not taken from the ranking."""
    ranking = rank(checkpoints(["a"]), TableEvaluate(lambda members: 0.9))
    evaluate = TableEvaluate(lambda members: 0.7)
    soup = greedy(ranking, evaluate)
    assert evaluate.asked == [frozenset("a")]
    assert soup.score.value == 0.7


def test_one_evaluation_a_candidate() -> None:
    """Every candidate costs one evaluation of members and candidate together, told to `progress`."""
    evaluate = TableEvaluate(lambda members: 1 / len(members))
    told: list[str] = []
    ranking = rank(checkpoints(["a", "b", "c"]), TableEvaluate(lambda members: 0.5))
    greedy(ranking, evaluate, progress=lambda task, done, total, note="": told.append(f"{done}/{total} {note}"))
    assert evaluate.asked == [frozenset("a"), frozenset("ab"), frozenset("ac")]
    assert told == [
        "1/3 a: metric 1.0000: start",
        "2/3 b: metric 0.5000: left out",
        "3/3 c: metric 0.5000: left out",
    ]


def test_stops_early() -> None:
    """`at_least` is what the candidate needs: a value below it is left out, the value itself is kept."""
    asked: list[float | None] = []
    table = TableEvaluate(lambda members: 0.5)

    def evaluate(weights: object, *, at_least: float | None = None) -> object:
        asked.append(at_least)
        return table(weights)  # type: ignore[arg-type]

    greedy(rank(checkpoints(["a", "b"]), table), evaluate, accept=">", min_delta=0.25)  # type: ignore[arg-type]
    greedy(rank(checkpoints(["a", "b"]), table), evaluate, min_delta=0.25)  # type: ignore[arg-type]
    assert asked == [None, math.nextafter(0.75, 1), None, 0.75]


def test_next_candidate_is_announced_before_one_is_evaluated() -> None:
    """Candidate n + 1 is announced before candidate n is evaluated, so that its reading overlaps."""
    events: list[str] = []

    def value(members: frozenset[str]) -> float:
        events.append("".join(sorted(members)))
        return 0.5

    evaluate = TableEvaluate(value)
    ranking = rank(checkpoints(["a", "b", "c"]), evaluate)
    events.clear()
    greedy(ranking, evaluate, announce=lambda checkpoint: events.append(f"announced {checkpoint.path}"))
    assert events == ["a", "announced c", "ab", "abc"]


def test_refused() -> None:
    """A candidate that may not be taken is left out however good it is, with the reason; the next one is tried on."""
    table = TableEvaluate(lambda members: len(members) / 10)

    def evaluate(weights: Mixture, *, at_least: float | None = None) -> Score:
        score = table(weights)
        refused = at_least is not None and any(str(member.path) == "b" for member in weights.members)
        return score._replace(refused="breaks the gate") if refused else score

    soup = greedy(rank(checkpoints(list("abc")), table), evaluate)
    assert members_of(soup) == ["a", "c"]
    assert [(step.accepted, step.reason) for step in soup.steps] == [
        *((True, "start"), (False, "breaks the gate"), (True, "better"))
    ]


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(2, 7),
    metric=st.sampled_from(["accuracy", "nll", "f1"]),
    accept=st.sampled_from([">=", ">"]),
    min_delta=st.sampled_from([0.0, 0.01, 0.1]),
)
@settings(max_examples=60, deadline=None)
def test_giving_up_decides_nothing(seed: int, count: int, metric: str, accept: Accept, min_delta: float) -> None:
    """Members, thresholds and decisions over random outcomes are the same with and without early stops."""
    names, n = list("abcdefg"[:count]), 100
    labels = torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(seed))

    def cook_once(*, give_up: bool) -> GreedySoup:
        seen = Difficulty()

        def evaluate(weights: Mixture, *, at_least: float | None = None) -> Score:
            members = frozenset(str(member.path) for member in weights.members)
            digest = hashlib.sha256(f"{seed}:{sorted(members)}".encode()).digest()
            logits = torch.randn(n, 3, generator=torch.Generator().manual_seed(digest[0] % 16)).round()
            logits[torch.arange(n), labels] += 1
            score = in_process.score(
                lambda inputs: inputs,  # type: ignore[arg-type, return-value]
                ArrayExamples(logits, labels, ""),
                name="val",
                metrics=[metric],
                device=torch.device("cpu"),
                batch_size=BatchSize(16),
                at_least=at_least,
                give_up=give_up,
                difficulty=seen.expected(dict.fromkeys(members, 1 / len(members))),
            )
            if score.difficulty is not None:
                seen.add(members, score.difficulty)
            return score

        return greedy(rank(checkpoints(names), evaluate), evaluate, accept=accept, min_delta=min_delta)

    early, full = cook_once(give_up=True), cook_once(give_up=False)
    assert members_of(early) == members_of(full)
    assert early.score.metrics == full.score.metrics
    assert [(s.threshold, s.accepted) for s in early.steps] == [(s.threshold, s.accepted) for s in full.steps]
    assert all(step.bound is None and not math.isnan(step.score) for step in full.steps)
    assert sum(step.examples for step in early.steps) <= sum(step.examples for step in full.steps)


def test_told_what_was_given_up() -> None:
    """A candidate that was given up has no score, and the step, its reason and progress say after how many examples."""
    told: list[str] = []

    def evaluate(weights: Mixture, *, at_least: float | None = None) -> Score:
        if at_least is None:
            return score_of(0.5)
        return Score({}, "metric", True, 3, {}, stopped=Stopped(3, 10, 0.4))

    ranking = rank(checkpoints(["a", "b"]), evaluate)
    soup = greedy(ranking, evaluate, progress=lambda task, done, total, note="": told.append(note))
    step = soup.steps[1]
    assert math.isnan(step.score)
    assert step[2:6] == (0.5, False, "out of reach after 3 of 10", 3)
    assert step.bound == 0.4
    assert told[1] == "b: metric at most 0.4000 after 3 of 10: left out"
