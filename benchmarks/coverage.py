"""How often the 95% intervals of a difference hold the truth, on simulated examples.

    python benchmarks/coverage.py                  # 500 samples for each cell, a minute on one core
    python benchmarks/coverage.py --samples 4000 --rows pearson spearman

Prints the table of docs/results.md. Two networks are simulated on the same examples: mostly right or wrong together,
each now and then right alone; or giving numbers whose errors go together. The truth is the difference over a million
examples. `held out`: the better of six networks and the better of four others are chosen on one half of `2 n` examples
and compared on the other. `cross-fitted`: a soup that nothing selected, and the best of ten equally good ingredients.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from soupcli.evaluation.compare import Side, best_side, compare
from soupcli.evaluation.loop import score_of
from soupcli.evaluation.paired_difference import Interval, metric_interval, share_interval
from soupcli.metrics.table import METRICS

SIZES = (20, 50, 200, 1000)
POINTS = (0.0, 0.01, 0.05)
MANY = 1_000_000
Outcomes = tuple[Tensor, Tensor]


Draw = Callable[[int, float, torch.Generator], Outcomes]


class Row(NamedTuple):
    """One line of the table: a metric and how its examples are made."""

    name: str
    metric: str
    draw: Draw


def classes(count: int, right: float, apart: float) -> Draw:
    """Predicted and true classes of two networks, of which one alone is right on a share `apart` of all examples."""

    def draw(n: int, gain: float, generator: torch.Generator) -> Outcomes:
        first_alone, second_alone = (max(apart, gain) + gain) / 2, (max(apart, gain) - gain) / 2
        labels_n = torch.randint(count, (n,), generator=generator)
        wrong_n = (labels_n + 1 + torch.randint(count - 1, (n,), generator=generator)) % count
        u_n = torch.rand(n, generator=generator)
        both = right - second_alone
        first_n = u_n < both + first_alone
        second_n = (u_n < both) | ((u_n >= both + first_alone) & (u_n < both + first_alone + second_alone))
        return tuple(  # type: ignore[return-value]
            torch.stack([torch.where(right_n, labels_n, wrong_n), labels_n, torch.full_like(labels_n, count)], dim=1)
            for right_n in (first_n, second_n)
        )

    return draw


def right_alone(right: float, apart: float) -> Draw:
    """1 if an example is right, else 0; `apart` 0: no example is right by the second network alone."""
    named = classes(5, right, apart)

    def draw(n: int, gain: float, generator: torch.Generator) -> Outcomes:
        first, second = named(n, gain, generator)
        return tuple((o[:, 0] == o[:, 1]).to(torch.uint8) for o in (first, second))  # type: ignore[return-value]

    return draw


def losses(scale: float, alike: float, margin: float) -> Draw:
    """Losses of two networks with normal margins times `scale`: the larger it is, the heavier is the tail."""

    def draw(n: int, gain: float, generator: torch.Generator) -> Outcomes:
        shared_n, one_n, other_n = torch.randn(3, n, generator=generator, dtype=torch.float64)
        own = math.sqrt(1 - alike * alike)
        first_n, second_n = (alike * shared_n + own * each_n + margin for each_n in (one_n, other_n))
        return functional.softplus(-scale * first_n), functional.softplus(-scale * (second_n - 3 * gain))

    return draw


def confidences(surplus: float, alike: float) -> Draw:
    """Confidence and rightness of two networks that are by `surplus` surer than right, the second by the gain more."""

    def draw(n: int, gain: float, generator: torch.Generator) -> Outcomes:
        shared_n, *own = torch.randn(3, n, generator=generator, dtype=torch.float64)
        u_n = torch.rand(n, generator=generator, dtype=torch.float64)
        found = []
        for own_n, above in zip(own, (surplus, surplus + gain), strict=True):
            right_n = 0.5 + 0.4 * torch.sigmoid(1.5 * (alike * shared_n + math.sqrt(1 - alike * alike) * own_n))
            found.append(torch.stack([right_n + above, (u_n < right_n).double()], dim=1))
        return found[1], found[0]

    return draw


def numbers(r: float, alike: float, tail: int | None) -> Draw:
    """Predicted and measured numbers that correlate by `r`, the first by the gain more; `tail`: degrees of freedom."""

    def draw(n: int, gain: float, generator: torch.Generator) -> Outcomes:
        measured_n, shared_n, *own = (_noise(n, tail, generator) for _ in range(4))
        found = []
        for own_n, of_r in zip(own, (r + gain, r), strict=True):
            error_n = alike * shared_n + math.sqrt(1 - alike * alike) * own_n
            predicted_n = of_r * measured_n + math.sqrt(1 - of_r * of_r) * error_n
            found.append(torch.stack([predicted_n, measured_n], dim=1))
        return found[0], found[1]

    return draw


def squares(alike: float, tail: int | None) -> Draw:
    """Squared errors of two networks, of the first larger by the gain."""

    def draw(n: int, gain: float, generator: torch.Generator) -> Outcomes:
        shared_n, *own = (_noise(n, tail, generator) for _ in range(3))
        first_n, second_n = (alike * shared_n + math.sqrt(1 - alike * alike) * each_n for each_n in own)
        return (math.sqrt(1 + gain) * first_n).square(), second_n.square()

    return draw


def windows(alike: float, spread: float) -> Draw:
    """Of windows of a text the sum of its tokens' losses and their number, in the first by the gain more a token."""

    def draw(n: int, gain: float, generator: torch.Generator) -> Outcomes:
        count_n = torch.full((n,), 256.0, dtype=torch.float64)
        count_n[-1] = 40.0
        shared_n, *own = torch.randn(3, n, generator=generator, dtype=torch.float64)
        losses = (
            spread * (alike * shared_n + math.sqrt(1 - alike * alike) * each_n) + math.log(20.0) + more
            for each_n, more in zip(own, (gain, 0.0), strict=True)
        )
        return tuple(torch.stack([loss_n * count_n, count_n], dim=1) for loss_n in losses)  # type: ignore[return-value]

    return draw


def label_rows(metric: str, classes: int, share: float, alike: float) -> Draw:
    """Examples that have each class with a chance of `share`; the first network tells them better by the gain."""

    def draw(n: int, gain: float, generator: torch.Generator) -> Outcomes:
        labels_nk = (torch.rand(n, classes, generator=generator) < share).to(torch.uint8)
        shared_nk, *own = torch.randn(3, n, classes, generator=generator)
        side_nk, apart = 2.0 * labels_nk - 1, math.sqrt(1 - alike * alike)
        return tuple(  # type: ignore[return-value]
            METRICS[metric].contribution(skill * side_nk + alike * shared_nk + apart * own_nk, labels_nk)
            for own_nk, skill in zip(own, (1.0 + 3 * gain, 1.0), strict=True)
        )

    return draw


def _noise(n: int, tail: int | None, generator: torch.Generator) -> Tensor:
    """Numbers of variance 1: normal, or Student's t with so many degrees of freedom."""
    normal_n = torch.randn(n, generator=generator, dtype=torch.float64)
    if tail is None:
        return normal_n
    chi_n = torch.randn(tail, n, generator=generator, dtype=torch.float64).square().sum(dim=0)
    return normal_n / (chi_n / tail).sqrt() * math.sqrt((tail - 2) / tail)


ROWS = (
    Row("accuracy, 6% apart", "accuracy", right_alone(0.8, 0.06)),
    Row("accuracy, one-sided", "accuracy", right_alone(0.8, 0.0)),
    Row("accuracy, 1% apart, 98% right", "accuracy", right_alone(0.93, 0.01)),
    Row("F1, 2 classes", "f1", classes(2, 0.85, 0.06)),
    Row("F1, 5 classes", "f1", classes(5, 0.8, 0.08)),
    Row("MCC, 2 classes", "mcc", classes(2, 0.85, 0.06)),
    Row("MCC, 5 classes", "mcc", classes(5, 0.8, 0.08)),
    Row("nll, calibrated", "nll", losses(1.5, 0.95, 1.0)),
    Row("nll, overconfident", "nll", losses(6.0, 0.95, 1.0)),
    Row("nll, very overconfident", "nll", losses(20.0, 0.99, 2.0)),
    Row("ece, calibrated", "ece", confidences(0.0, 0.95)),
    Row("ece, 5 points too sure", "ece", confidences(0.05, 0.95)),
    Row("pearson", "pearson", numbers(0.8, 0.9, None)),
    Row("pearson, heavy tails", "pearson", numbers(0.8, 0.9, 5)),
    Row("spearman", "spearman", numbers(0.8, 0.9, None)),
    Row("spearman, heavy tails", "spearman", numbers(0.8, 0.9, 5)),
    Row("mse", "mse", squares(0.98, None)),
    Row("mse, heavy tails", "mse", squares(0.98, 5)),
    Row("perplexity", "perplexity", windows(0.98, 0.4)),
    Row("mAP, 10 classes", "map", label_rows("map", 10, 0.2, 0.95)),
    Row("mAP, 10 rare classes", "map", label_rows("map", 10, 0.05, 0.95)),
    Row("F1 micro, 10 classes", "f1_micro", label_rows("f1_micro", 10, 0.2, 0.95)),
    Row("F1 macro, 10 rare classes", "f1_macro", label_rows("f1_macro", 10, 0.05, 0.95)),
    Row("bce, 10 classes", "bce", label_rows("bce", 10, 0.2, 0.95)),
)


HELD_OUT = "accuracy, held out"
CROSS_FITTED = "accuracy, cross-fitted"


def interval(metric: str, first: Tensor, second: Tensor) -> Interval | None:
    """What `soup` says of these outcomes."""
    if metric == "accuracy":
        return share_interval(int((first > second).sum()), int((first < second).sum()), len(first))
    return metric_interval(METRICS[metric], first, second)


@cache
def truth_of(row: Row, gain: float) -> float:
    """The difference over very many examples."""
    if row.metric == "accuracy":
        return gain
    first, second = row.draw(MANY, gain, torch.Generator().manual_seed(1))
    ones, weighted = torch.ones(1, MANY, dtype=torch.float64), METRICS[row.metric].weighted
    return float(weighted(first, ones) - weighted(second, ones))


def covered(row: Row, n: int, gain: float, samples: int) -> float:
    """The share of intervals that hold the truth; NaN if fewer than half of the samples have one."""
    truth, generator = truth_of(row, gain), torch.Generator().manual_seed(n)
    found = [interval(row.metric, *row.draw(n, gain, generator)) for _ in range(samples)]
    known = [one for one in found if one is not None]
    if 2 * len(known) < samples:
        return math.nan
    return sum(low - 1e-9 <= truth <= high + 1e-9 for low, high in known) / len(known)


def covered_held_out(n: int, gain: float, samples: int) -> float:
    """The same after a choice on one half: six soups that are `gain` better than four ingredients, give or take."""
    generator, normal = torch.Generator().manual_seed(n), NormalDist()
    level_k = torch.tensor([0.8 + gain + 0.004 * k for k in range(-3, 3)] + [0.8 + 0.004 * k for k in range(-2, 2)])
    at_k = torch.tensor([normal.inv_cdf(float(level)) for level in level_k])
    inside = 0
    for _ in range(samples):
        hard_n1 = 0.97 * torch.randn(2 * n, 1, generator=generator)
        right_nk = hard_n1 + 0.243 * torch.randn(2 * n, 10, generator=generator) < at_k
        score_k = right_nk[:n].sum(dim=0)
        soup, best = int(score_k[:6].argmax()), 6 + int(score_k[6:].argmax())
        first, second = right_nk[n:, [soup, best]].to(torch.uint8).unbind(dim=1)
        low, high = share_interval(int((first > second).sum()), int((first < second).sum()), n)
        inside += low <= float(level_k[soup] - level_k[best]) <= high
    return inside / samples


def covered_cross_fitted(n: int, gain: float, samples: int) -> float:
    """The same of a soup that is `gain` better than each of ten ingredients, against the cross-fitted best of these."""
    generator, normal = torch.Generator().manual_seed(n), NormalDist()
    at_k = torch.tensor([normal.inv_cdf(0.8)] * 10 + [normal.inv_cdf(0.8 + gain)])
    inside = 0
    for _ in range(samples):
        hard_n1 = 0.97 * torch.randn(n, 1, generator=generator)
        right_nk = (hard_n1 + 0.243 * torch.randn(n, 11, generator=generator) < at_k).to(torch.uint8)
        *alone, soup = (score_of({"accuracy": right_n}, "accuracy", examples=n) for right_n in right_nk.unbind(dim=1))
        side = best_side("best", {"val": alone[0]}, "val", alone, fair=True)
        [found] = compare(Side("soup", {"val": soup}), side)
        assert found.low is not None and found.high is not None
        inside += found.low <= gain <= found.high
    return inside / samples


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=500)
    known = [row.name for row in ROWS] + [HELD_OUT, CROSS_FITTED]
    parser.add_argument("--rows", nargs="+", metavar="WORD", help="rows that begin with a word; default: all")
    options = parser.parse_args()
    samples = options.samples
    asked = [name for name in known if options.rows is None or name.startswith(tuple(options.rows))]
    began = time.monotonic()
    cells = [f"{n}: +{100 * gain:.0f}" for n in SIZES for gain in POINTS]
    print(f"| | {' | '.join(cells)} |\n|---|{'---:|' * len(cells)}")
    rows: list[tuple[str, Callable[[int, float], float]]] = [
        (row.name, lambda n, gain, row=row: covered(row, n, gain, samples))  # type: ignore[misc]
        for row in ROWS
    ]
    rows.append((HELD_OUT, lambda n, gain: covered_held_out(n, gain, samples)))
    rows.append((CROSS_FITTED, lambda n, gain: covered_cross_fitted(n, gain, samples)))
    for name, share in (row for row in rows if row[0] in asked):
        cells = [f"{100 * share(n, gain):.1f}".replace("nan", "none") for n in SIZES for gain in POINTS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{samples} samples for each cell, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
