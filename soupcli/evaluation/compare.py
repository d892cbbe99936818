"""Examples of two sets of weights, compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from soupcli.evaluation.paired_difference import difference
from soupcli.evaluation.score import Score, is_higher_better
from soupcli.progress import Progress, silent
from soupcli.report.comparisons import Comparison


class Side(NamedTuple):
    """Weights, by their path in the report, and their scores by set."""

    path: str
    scores: Mapping[str, Score]


def compare(soup: Side, best: Side, *, progress: Progress = silent) -> list[Comparison]:
    """Every metric of both on every set that both have been evaluated on; on each set the one that selects first."""
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
        of = difference(score, best.scores[name], metric)
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
            )
        )
        progress("comparing", done, len(both))
    return found
