"""The searches beside Recipe 1, each against twenty lines written from its description, over tables of outcomes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.errors import ValidationError
from soupcli.evaluation.score import Score
from soupcli.mixing.mixture import Mixture
from soupcli.recipe.methods import Greedy
from soupcli.soups.budgeted import draw
from soupcli.soups.ranking import rank
from soupcli.soups.search import SearchResult, most_evaluations, orders_of, search
from tests.helpers.outcomes import TableEvaluate, checkpoints, random_outcomes, recipe_1, score_of
from tests.helpers.soups_by_hand import Value, pruned_by_hand, ranked, replaced_by_hand

Accept = Literal[">=", ">"]
GRID = [k / 8 for k in range(9)]  # sums of these and of a margin of 1/8 are exact
TABLES = {
    "seed": st.integers(0, 10_000),
    "count": st.integers(1, 6),
    "higher": st.booleans(),
    "accept": st.sampled_from([">=", ">"]),
    "min_delta": st.sampled_from([0.0, 0.125]),
}


class WeighedEvaluate:
    """An Evaluate over whole-number weights: what a soup scores depends on how much it holds of each member."""

    def __init__(self, value: Value, *, higher: bool) -> None:
        self.value = value
        self.higher = higher
        self.asked: list[frozenset[str]] = []

    def __call__(self, weights: Mixture, *, at_least: float | None = None) -> Score:
        """See soupcli.evaluation.score.Evaluate."""
        shares = zip(weights.members, weights.weights, strict=True)
        key = frozenset(f"{member.path}={Fraction(share).limit_denominator(1000)}" for member, share in shares)
        self.asked.append(key)
        return score_of(self.value(key), higher=self.higher)


def found(
    names: list[str], value: Value, *, higher: bool = True, **settings: Any
) -> tuple[SearchResult, TableEvaluate]:
    evaluate = TableEvaluate(value, higher=higher)
    ranking = rank(checkpoints(names), evaluate)
    evaluate.asked.clear()
    predict = settings.pop("predict", None)
    return search(ranking, evaluate, Greedy(**settings), predict=predict), evaluate


def members_of(soup: SearchResult) -> list[str]:
    return [str(member.path) for member in soup.soup.mixture.members]


def signed(value: Value, *, higher: bool) -> Value:
    return lambda members: value(members) if higher else -value(members)


@given(**TABLES)
def test_pruned(seed: int, count: int, higher: bool, accept: Accept, min_delta: float) -> None:
    """Members are those of the description, and no soup is asked for more often than is said."""
    value, names = random_outcomes(seed, GRID), list("abcdef"[:count])
    settings: dict[str, Any] = {"strategy": "pruned", "accept": accept, "min_delta": min_delta}
    soup, evaluate = found(names, value, higher=higher, **settings)
    assert members_of(soup) == pruned_by_hand(names, signed(value, higher=higher), accept, min_delta)
    assert soup.evaluations == len(evaluate.asked) == len(soup.soup.steps)
    assert count + soup.evaluations <= most_evaluations(count, Greedy(**settings))
    alone = signed(value, higher=higher)(frozenset(ranked(names, signed(value, higher=higher))[:1]))
    assert soup.soup.score.goodness >= alone
    removed = [str(step.candidate.path) for step in soup.soup.steps if step.action == "remove" and step.accepted]
    taken = soup.soup.steps[-1].action == "take" and soup.soup.steps[-1].accepted
    assert taken or sorted([*removed, *members_of(soup)]) == names


@given(seed=TABLES["seed"], count=TABLES["count"], higher=TABLES["higher"], orders=st.integers(1, 3))
def test_random_orders_keep_the_best(seed: int, count: int, higher: bool, orders: int) -> None:
    """A search that begins with any ingredient still ends no worse than the best of them."""
    value, names = random_outcomes(seed, GRID), list("abcdef"[:count])
    settings: dict[str, Any] = {"order": "random", "orders": orders, "seed": seed}
    soup, evaluate = found(names, value, higher=higher, **settings)
    good = signed(value, higher=higher)
    assert soup.soup.score.goodness >= good(frozenset(ranked(names, good)[:1]))
    assert count + len(evaluate.asked) <= most_evaluations(count, Greedy(**settings)) + 1
    assert soup.evaluations == len(evaluate.asked)


@given(
    seed=TABLES["seed"],
    count=TABLES["count"],
    higher=TABLES["higher"],
    min_delta=TABLES["min_delta"],
    rounds=st.integers(1, 8),
)
def test_replacement(seed: int, count: int, higher: bool, min_delta: float, rounds: int) -> None:
    """Weights are the whole numbers of ensemble selection over their sum; each round costs an evaluation a name."""
    value, names = random_outcomes(seed, [k / 64 for k in range(65)]), list("abcdef"[:count])
    settings = Greedy(strategy="replacement", min_delta=min_delta, rounds=rounds)
    evaluate = WeighedEvaluate(value, higher=higher)
    ranking = rank(checkpoints(names), evaluate)
    evaluate.asked.clear()
    soup = search(ranking, evaluate, settings).soup
    weights = {
        str(m.path): Fraction(w).limit_denominator(1000)
        for m, w in zip(soup.mixture.members, soup.mixture.weights, strict=True)
    }
    assert weights == replaced_by_hand(names, signed(value, higher=higher), min_delta, rounds)
    assert soup.score.value == value(frozenset(f"{name}={weight}" for name, weight in weights.items()))
    assert count + len(evaluate.asked) <= most_evaluations(count, settings) + 1
    accepted = [step for step in soup.steps if step.accepted]
    counts = Counter(str(step.candidate.path) for step in accepted)
    assert {name: Fraction(n, counts.total()) for name, n in counts.items()} == weights


def test_replacement_says_what_was_beaten() -> None:
    """Of two additions that are better than none, one is taken; the other's step says so."""
    value = {"a": 0.5, "b": 0.4, "c": 0.3, "ab": 0.6, "ac": 0.7}
    soup, _ = found(["a", "b", "c"], lambda m: value.get("".join(sorted(m)), 0.1), strategy="replacement", rounds=1)
    steps = [(str(s.candidate.path), s.threshold, s.accepted, s.reason) for s in soup.soup.steps]
    assert steps == [
        ("a", None, True, "start"),
        ("b", 0.5, False, "another is better"),
        ("c", 0.6, True, "better"),
    ]
    assert soup.soup.mixture.weights == (0.5, 0.5)


def table_predict(value: Value, *, higher: bool) -> Callable[[Any], list[Score]]:
    evaluate = TableEvaluate(value, higher=higher)
    return lambda mixtures: [evaluate(mixture) for mixture in mixtures]


@given(seed=TABLES["seed"], count=TABLES["count"], higher=TABLES["higher"], budget=st.integers(1, 70))
def test_budgeted(seed: int, count: int, higher: bool, budget: int) -> None:
    """Of all soups, those with the best predictions are evaluated, as many as the budget, and the best one is taken."""
    value, predicted = random_outcomes(seed, GRID), random_outcomes(seed + 1, GRID)
    names, predict = list("abcdef"[:count]), table_predict(predicted, higher=higher)
    soup, evaluate = found(names, value, higher=higher, strategy="budgeted", budget=budget, predict=predict)
    good, foreseen = signed(value, higher=higher), signed(predicted, higher=higher)
    order = ranked(names, good)
    several = [s for size in range(2, count + 1) for s in itertools.combinations(range(count), size)]
    several.sort(key=lambda ranks: -foreseen(frozenset(order[rank] for rank in ranks)))
    tried = [frozenset(order[:1])] + [frozenset(order[rank] for rank in ranks) for ranks in several[:budget]]
    assert evaluate.asked == tried
    assert frozenset(members_of(soup)) == max(tried, key=good)
    assert soup.evaluations <= 1 + budget


def test_drawn_candidates() -> None:
    """Where there are more soups than candidates they are drawn: each once, of all sizes, the same for one seed."""
    drawn = draw(12, 300, seed=1)
    assert len(set(drawn)) == len(drawn) == 300
    assert {len(some) for some in drawn} == set(range(2, 13))
    assert all(list(some) == sorted(set(some)) and set(some) <= set(range(12)) for some in drawn)
    assert draw(12, 300, seed=1) == drawn != draw(12, 300, seed=2)
    assert len(draw(5, 26, seed=0)) == 26 == 2**5 - 1 - 5


@given(**TABLES, orders=st.integers(1, 4))
def test_orders(seed: int, count: int, higher: bool, accept: Accept, min_delta: float, orders: int) -> None:
    """Recipe 1 over the ranking and over random orders: the best soup, of equal ones that of the first order."""
    value, names = random_outcomes(seed, GRID), list("abcdef"[:count])
    soup, evaluate = found(names, value, higher=higher, accept=accept, min_delta=min_delta, orders=orders, seed=seed)
    soups = []
    for order, one in soup.soups:
        given_order = {str(checkpoint.path): place for place, checkpoint in enumerate(order)}

        def placed(members: frozenset[str], places: dict[str, int] = given_order) -> float:
            single = len(members) == 1 and members != frozenset([min(places, key=places.__getitem__)])
            place = -places[next(iter(members))]
            return -100.0 + place if single else signed(value, higher=higher)(members)

        assert recipe_1(names, placed, higher=True, accept=accept, min_delta=min_delta) == [
            str(member.path) for member in one.mixture.members
        ]
        soups.append(one)
    goodness = [one.score.goodness for one in soups]
    assert soup.soup is soups[goodness.index(max(goodness))]
    assert [str(c.path) for c in soup.soups[0][0]] == ranked(names, signed(value, higher=higher))
    assert soup.evaluations == len(evaluate.asked) == orders * count


def test_random_order_of_the_paper() -> None:
    """`order: random` begins with whoever is drawn, by the seed; a NaN is never the start while there is another."""
    scores = {"a": 0.1, "b": math.nan, "c": 0.3, "d": math.nan}
    ranking = rank(checkpoints(list(scores)), TableEvaluate(lambda members: scores[min(members)]))
    orders = [orders_of(ranking, Greedy(order="random", seed=seed)) for seed in range(20)]
    assert all(len(order) == 1 for order in orders)
    firsts = {str(order[0][0].checkpoint.path) for order in orders}
    assert firsts == {"a", "c"}
    assert orders_of(ranking, Greedy(order="random", seed=3)) == orders[3]


@pytest.mark.parametrize("strategy", ["forward", "pruned", "replacement"])
def test_asks_no_more_than_a_decision_needs(strategy: Any) -> None:
    """Every trial may be stopped at what it must reach, and that is exact: stopping changes no member."""
    stopped = 0
    for seed in range(30):
        value, names = random_outcomes(seed, GRID), list("abcde")
        whole = TableEvaluate(value)

        def stopping(weights: Mixture, *, at_least: float | None = None, whole: TableEvaluate = whole) -> Score:
            nonlocal stopped
            score = whole(weights)
            if at_least is not None and score.goodness < at_least:
                stopped += 1
                return score_of(math.nan)
            return score

        ranking, settings = rank(checkpoints(names), whole), Greedy(strategy=strategy, orders=1)
        assert search(ranking, stopping, settings).soup.mixture == search(ranking, whole, settings).soup.mixture
    assert stopped > 0


def test_nothing_to_prune_from() -> None:
    """Where the mean of all is not a number there is nothing to prune, and the error says so."""
    with pytest.raises(ValidationError, match=r"^the mean of 2: metric is not a number, and there is nothing to begin"):
        found(["a", "b"], lambda members: math.nan if len(members) == 2 else 0.5, strategy="pruned")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "budgeted"}, "needs a budget"),
        ({"budget": 3}, "is for strategy: budgeted"),
        ({"strategy": "replacement", "orders": 2}, "are for forward and pruned"),
        ({"strategy": "budgeted", "budget": 2, "order": "random"}, "are for forward and pruned"),
        ({"strategy": "budgeted", "budget": 2, "min_delta": 0.1}, "by whatever margin"),
    ],
)
def test_settings_that_say_nothing(settings: Any, message: str) -> None:
    """A setting that the strategy does not know is refused, not passed over."""
    with pytest.raises(ValueError, match=message):
        Greedy(**settings)
