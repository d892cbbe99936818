"""A soup compared with others: the best ingredient, gates, what an ensemble costs."""

from __future__ import annotations

from soupcli.report.scores import Number, ReportPart
from soupcli.wording import SURE


class Comparison(ReportPart):
    """A soup against the best ingredient: one metric of one set, over the same examples."""

    set: str
    metric: str
    soup: str
    best: str
    difference: Number
    """The soup's value less that of the best ingredient."""
    low: Number = None
    """The 95% interval of the difference over the same examples; null if a set shows no single examples."""
    high: Number = None
    p: Number = None
    """Exact McNemar test, two-sided, where each example is right or wrong."""
    n: int | None
    higher_is_better: bool
    cross_fitted: bool = False
    """Whether the best ingredient is picked on nine tenths of the set for each other tenth: the soup was not selected
    here, so neither side is."""
    tried: int | None = None
    """From how many sets of weights, ingredients among them, this set selected the soup: the more, the more its score
    here is flattered. Null if it did not select it, or by a fit."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `equal` or `too close to tell`; without an interval by the difference alone."""
        if self.difference is None:
            return "not a number"
        if self.difference == 0 and not self.low and not self.high:
            return "equal"
        if self.low is None or self.high is None:
            found = self.difference > 0
            return f"{'better' if found == self.higher_is_better else 'worse'} (no interval)"
        if self.low <= 0 <= self.high or (self.p is not None and self.p >= SURE):
            return "too close to tell"
        return "better" if (self.low > 0) == self.higher_is_better else "worse"


class GateResult(ReportPart):
    """A gate of the recipe on a set, and its outcome."""

    soup: str
    set: str
    metric: str
    gate: str
    """E.g. `>= best - 0.5`."""
    key: str
    """The recipe's key that says it, e.g. `gates.imagenet-a` or `require_gain`."""
    value: Number
    needed: Number
    """The value that it was compared with."""
    met: bool | None
    """Null if there was no ingredient to compare the soup with."""
    reason: str


class Flops(ReportPart):
    """Floating-point operations of one example, two for each multiplication with its addition."""

    set: str
    """Whose first example was counted."""
    forward: int
    """Of one network, so of the soup as well."""
    ingredients: int
    ensemble: int
    """Of all ingredients."""
    ensemble_of_members: int | None = None
    """Of the soup's members; null without a soup."""
    beside: dict[str, float] = {}
    """Of other networks, as the recipe gives them."""
