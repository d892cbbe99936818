"""The searches beside Recipe 1, each written from its description, over a function from members to their goodness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction

Value = Callable[[frozenset[str]], float]


def ranked(names: list[str], good: Value) -> list[str]:
    return sorted(names, key=lambda name: (-good(frozenset([name])), name))


def pruned_by_hand(names: list[str], good: Value, accept: str, min_delta: float) -> list[str]:
    """All; then passes from the worst to the best, in each of which whoever can be spared goes; or the best alone."""
    left, best = _left_over(names, good, accept, min_delta), ranked(names, good)[:1]
    return best if good(frozenset(best)) > good(frozenset(left)) else left


def _left_over(names: list[str], good: Value, accept: str, min_delta: float) -> list[str]:
    members = ranked(names, good)
    while True:
        before = list(members)
        for name in reversed(before):
            rest = [member for member in members if member != name]
            if not rest:
                break
            gain = good(frozenset(rest)) - good(frozenset(members)) - min_delta
            if gain > 0 or (gain == 0 and accept == ">="):
                members = rest
        if members == before:
            return members


def replaced_by_hand(names: list[str], good: Value, min_delta: float, rounds: int) -> dict[str, Fraction]:
    """Ensemble selection with replacement: the best addition of each round while it is better than none."""

    def score(counts: Counter[str]) -> float:
        return good(frozenset(f"{name}={Fraction(n, counts.total())}" for name, n in counts.items()))

    order = sorted(names, key=lambda name: (-good(frozenset([f"{name}=1"])), name))
    counts = Counter([order[0]])
    for _ in range(rounds):
        trials = [counts + Counter([name]) for name in order]
        best = max(trials, key=score)
        if not score(best) > score(counts) + min_delta:
            break
        counts = best
    return {name: Fraction(n, counts.total()) for name, n in counts.items()}
