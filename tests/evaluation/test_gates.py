"""Whether a score passes a gate, exactly, and what is said of it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.errors import ValidationError
from soupcli.evaluation.gates import Gate, GateOutcome, check, judge
from soupcli.evaluation.score import Score
from soupcli.metrics.metric import MetricValue
from soupcli.recipe.gates import Bound, parse


def score(value: float, metric: str = "accuracy", n: int | None = 1000) -> Score:
    return Score({metric: MetricValue(value, None, n)}, metric, metric != "nll", 0, {})


def gate(text: str, metric: str | None = None) -> Gate:
    return Gate("val", metric, parse(text), text, "gates.val")


def verdict(text: str, soup: Score, best: Score | None = None) -> GateOutcome:
    return judge(gate(text), soup, best)


@pytest.mark.parametrize(
    ("text", "met", "reason"),
    [
        (">= best - 0.5", True, "79.50%, best 80.00%: -0.50, at least -0.50 is needed"),
        ("> best - 0.5", False, "79.50%, best 80.00%: -0.50, more than -0.50 is needed"),
        (">= best - 0.5%", True, "79.50%, best 80.00%: -0.50, at least -0.50 is needed"),
        (">= best", False, "79.50%, best 80.00%: -0.50, at least +0.00 is needed"),
        (">= 0.795", True, "79.50%, at least 79.50% is needed"),
        (">= 79.5%", True, "79.50%, at least 79.50% is needed"),
        ("> 79.5%", False, "79.50%, more than 79.50% is needed"),
    ],
)
def test_shares(text: str, met: bool, reason: str) -> None:
    """Margins are percentage points, bounds fractions of 1 or per cent; equal is equal."""
    found = verdict(text, score(0.795), score(0.8))
    assert (found.met, found.reason, found.value) == (met, reason, 0.795)


@given(n=st.integers(1, 50_000), data=st.data())
def test_whole_examples(n: int, data: st.DataObject) -> None:
    """A share passes `>= best - m` where the examples that it lacks are at most m per cent of all, to the example."""
    best, own = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    tenths = data.draw(st.integers(0, 100))
    found = verdict(f">= best - {tenths / 10}", score(own / n, n=n), score(best / n, n=n))
    assert found.met == ((best - own) * 1000 <= tenths * n)


def test_other_metrics() -> None:
    """Margins and bounds are in the metric's own unit."""
    assert verdict("<= best + 0.01", score(0.51, "nll"), score(0.5, "nll")).met is True
    assert verdict("<= best + 0.01", score(0.5101, "nll"), score(0.5, "nll")).met is False
    found = verdict("<= 1.2", score(1.25, "nll"))
    assert (found.met, found.reason, found.needed) == (False, "1.2500, at most 1.2000 is needed", 1.2)


@pytest.mark.parametrize(
    ("metric", "own", "met"), [("accuracy", 0.81, True), ("nll", 0.79, True), ("nll", 0.81, False)]
)
def test_a_gain_is_on_the_side_that_is_better(metric: str, own: float, met: bool) -> None:
    """`--require-gain` asks for less of what is better the lower."""
    margin = Fraction(1) if metric == "accuracy" else Fraction(1, 100)
    wanted = Gate("val", None, Bound(">=", True, margin, better=True), ">= best + 1", "require_gain")
    assert judge(wanted, score(own, metric), score(0.8, metric)).met is met


def test_not_a_number() -> None:
    """It passes no gate."""
    found = verdict(">= 0", score(math.nan))
    assert (found.met, found.reason, found.needed) == (False, "not a finite number", None)


def test_no_ingredient() -> None:
    """Without an ingredient to hold it against a gate stays open; one with a number does not."""
    found = verdict(">= best", score(0.5))
    assert (found.met, found.reason) == (None, "not checked: no ingredient to hold it against")
    assert verdict(">= 0.5", score(0.5)).met is True


def test_unknown_metric() -> None:
    """A metric that the set has not got is an error, with the nearest one."""
    with pytest.raises(ValidationError, match=r"gates.val: val has no metric 'acuracy', did you mean 'accuracy'"):
        judge(gate(">= 0.5", "acuracy"), score(0.5), None)


@pytest.mark.parametrize(
    ("text", "metric", "message", "hint"),
    [
        (">= 80", "accuracy", "gates.val: accuracy is a fraction of 1, got 80", "write 80% for per cent"),
        (">= 0.5", "nll", "gates.val: nll is better the lower, got '>= 0.5'", "write <="),
        ("< best", "mcc", "gates.val: mcc is better the higher, got '< best'", "write >="),
    ],
)
def test_nonsense(text: str, metric: str, message: str, hint: str) -> None:
    """What no score could be meant by is refused before one is measured."""
    with pytest.raises(ValidationError) as refused:
        check(gate(text), metric)
    assert (str(refused.value), refused.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("text", "metric"), [(">= 80%", "accuracy"), (">= 1", "top5"), ("<= 80", "perplexity"), (">= 0.5", "of a function")]
)
def test_sense(text: str, metric: str) -> None:
    """What can be meant passes."""
    check(gate(text), metric)


@pytest.mark.parametrize(
    ("right", "text", "reason"),
    [
        (96999, ">= 0.97", "96.999%, at least 97.000% is needed"),
        (97000, ">= 0.97", "97.00%, at least 97.00% is needed"),
        (96999, ">= best", "96.999%, best 97.000%: -0.001, at least +0.000 is needed"),
    ],
)
def test_what_is_not_met_does_not_look_met(right: int, text: str, reason: str) -> None:
    """Values that differ are told with so many digits that they look so; a loss is never 0.00."""
    one, best = (score(count / 10**5, n=10**5) for count in (right, 97000))
    assert verdict(text, one, best).reason == reason
