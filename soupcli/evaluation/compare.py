"""Compares two sets of weights, example by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from soupcli.evaluation.cross_fit import COUNTED, cross_fitted
from soupcli.evaluation.paired_difference import difference
from soupcli.evaluation.score import Score, is_higher_better
from soupcli.progress import Progress, silent
from soupcli.report.comparisons import Comparison


class Side(NamedTuple):
    """One side of a comparison: its path and its scores. On `cross_fitted` sets it is the best of each fold."""

    path: str
    scores: Mapping[str, Score]
    cross_fitted: frozenset[str] = frozenset()


def best_side(path: str, scores: Mapping[str, Score], picked_on: str, everyone: Sequence[Score], *, fair: bool) -> Side:
    """Return the best ingredient, picked on one set from the scores of `everyone`.

    If `fair`, the soup was not selected on that set; then the best is cross-fitted there, if possible.
    """
    fitted = cross_fitted(everyone) if fair else None
    if fitted is None:
        return Side(path, scores)
    return Side(path, {**scores, picked_on: fitted}, frozenset([picked_on]))


def compare(
    soup: Side, best: Side, *, tried: Mapping[str, int | None] | None = None, progress: Progress = silent
) -> list[Comparison]:
    """Compare every metric on every set that both sides were evaluated on, the selecting metric first.

    `tried` maps each set that selected the soup to the number of mixtures tried there.
    """
    both = [
        (name, metric)
        for name, score in soup.scores.items()
        if name in best.scores
        for metric in sorted(score.metrics, key=lambda metric: metric != score.selecting)
        if metric in best.scores[name].metrics
    ]
    found = []
    for done, (name, metric) in enumerate(both, 1):
        score = soup.scores[name]
        of = difference(score, best.scores[name], metric, counted=COUNTED if name in best.cross_fitted else 1.0)
        found.append(
            Comparison(
                set=name,
                metric=metric,
                soup=soup.path,
                best=best.path,
                difference=of.value,
                low=of.low,
                high=of.high,
                p=of.p,
                n=score.metrics[metric].n,
                higher_is_better=is_higher_better(metric, score),
                cross_fitted=name in best.cross_fitted,
                tried=(tried or {}).get(name),
            )
        )
        progress("comparing", done, len(both))
    return found
