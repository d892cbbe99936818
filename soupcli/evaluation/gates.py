"""Gates of a soup: whether its score on a set passes the recipe's bound.

Shares are compared as whole numbers of examples: 79.5% is at least 80% - 0.5, whatever binary fractions say.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from soupcli.errors import ValidationError
from soupcli.evaluation.score import Score, is_higher_better
from soupcli.metrics.table import defined
from soupcli.wording import SHARES, suggestion

if TYPE_CHECKING:
    from soupcli.metrics.metric import MetricValue
    from soupcli.recipe.gates import Bound

_SIDES = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}


class Gate(NamedTuple):
    """A bound on a metric of a set (None: the selecting one), with its text and its key in the recipe."""

    set: str
    metric: str | None
    bound: Bound
    text: str
    key: str


class GateOutcome(NamedTuple):
    """Whether a soup passes a gate, and why. `met` is None if there is no ingredient to compare with."""

    gate: Gate
    metric: str
    met: bool | None
    value: float
    needed: float | None
    reason: str


def check(gate: Gate, metric: str) -> None:
    """Raises ValidationError for a bound that makes no sense for the metric, before anything is evaluated."""
    bound = gate.bound
    if metric in SHARES and not bound.best and not bound.per_cent and bound.number > 1:
        number = f"{float(bound.number):g}"
        raise ValidationError(
            f"{gate.key}: {metric} is a fraction of 1, got {number}", hint=f"write {number}% for per cent"
        )
    definition = defined(metric)
    if definition is not None and not bound.better and definition.higher_is_better != (bound.sign[0] == ">"):
        way, sign = ("higher", ">=") if definition.higher_is_better else ("lower", "<=")
        raise ValidationError(f"{gate.key}: {metric} is better the {way}, got {gate.text!r}", hint=f"write {sign}")


def judge(gate: Gate, soup: Score, best: Score | None) -> GateOutcome:
    """Return whether a score passes a gate. Raises ValidationError if it lacks the metric."""
    metric, bound = gate.metric or soup.selecting, gate.bound
    if metric not in soup.metrics:
        raise ValidationError(
            f"{gate.key}: {gate.set} has no metric {metric!r}{suggestion(metric, soup.metrics)}",
            hint=f"it has {', '.join(soup.metrics)}",
        )
    value = soup.metrics[metric]
    if not math.isfinite(value.value):
        return GateOutcome(gate, metric, False, value.value, None, "not a finite number")
    own = _exact(metric, value)
    if not bound.best:
        needed = bound.number / (100 if bound.per_cent else 1)
        shown, wanted = _told_apart(metric, own, needed)
        reason = f"{shown}, {_SIDES[bound.sign]} {wanted} is needed"
        return GateOutcome(gate, metric, _holds(own, bound.sign, needed), value.value, float(needed), reason)
    if best is None or metric not in best.metrics or not math.isfinite(best.metrics[metric].value):
        return GateOutcome(gate, metric, None, value.value, None, "not checked: no ingredient to hold it against")
    sign, margin = bound.sign, bound.number / (100 if metric in SHARES or bound.per_cent else 1)
    if bound.better and not is_higher_better(metric, soup):
        sign, margin = "<=", -margin
    other = _exact(metric, best.metrics[metric])
    shown, best_shown = _told_apart(metric, own, other)
    gain, wanted = _told_apart(metric, own - other, margin, sign="+")
    reason = f"{shown}, best {best_shown}: {gain}, {_SIDES[sign]} {wanted} is needed"
    return GateOutcome(gate, metric, _holds(own, sign, other + margin), value.value, float(other + margin), reason)


def _holds(value: Fraction, sign: str, needed: Fraction) -> bool:
    return {">=": value >= needed, ">": value > needed, "<=": value <= needed, "<": value < needed}[sign]


def _exact(metric: str, value: MetricValue) -> Fraction:
    """Return the value as an exact fraction. A share becomes the fraction of examples that it was rounded from."""
    if metric in SHARES and value.n:
        whole = Fraction(round(value.value * value.n), value.n)
        if math.isclose(whole, value.value, rel_tol=1e-12, abs_tol=1e-12):
            return whole
    return Fraction(repr(value.value))


def _told_apart(metric: str, one: Fraction, other: Fraction, *, sign: str = "") -> tuple[str, str]:
    """Return both values with enough digits to tell them apart, and to tell each from 0."""
    found = ("", "")
    for digits in range(2, 8):
        found = _shown(metric, one, digits, sign), _shown(metric, other, digits, sign)
        hidden = [value for value, shown in zip((one, other), found, strict=True) if value and not NOT_0.search(shown)]
        if not hidden and (found[0] != found[1] or one == other):
            break
    return found


NOT_0 = re.compile("[1-9]")


def _shown(metric: str, value: Fraction, digits: int, sign: str) -> str:
    """Return e.g. `79.50%` for a share, `+0.50` for a difference of shares, `0.1834` otherwise."""
    if metric not in SHARES:
        return f"{float(value):{sign}.{digits + 2}f}"
    return f"{float(value * 100):{sign}.{digits}f}{'' if sign else '%'}"
