"""Tables of scores: one row for each set of weights, one column for each validation set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from soupcli.cli.console import Table
from soupcli.validation.score import MetricValue, Score
from soupcli.wording import shown as in_words


def score_table(
    rows: Sequence[tuple[str, Mapping[str, Score]]], sets: Sequence[str], *, first: str, metrics: Sequence[str] = ()
) -> Table:
    """`first` heads the names of the rows; the last row is marked where it is a soup's.

    Beside the metric that selects on a set stand those of `metrics` that it has, each in a column `set metric`.
    """
    columns: list[tuple[str, str | None]] = []
    for name in sets:
        found = [scores[name] for _, scores in rows if name in scores]
        beside = [m for m in metrics if any(m in score.metrics and m != score.selecting for score in found)]
        columns += [(name, metric) for metric in (None, *beside)]
    table = Table(first, *(f">{name}" if metric is None else f">{name} {metric}" for name, metric in columns))
    for label, scores in rows:
        table.add(label, *(shown(scores[name], metric) if name in scores else "" for name, metric in columns))
    return table


def shown(score: Score, metric: str | None = None) -> str:
    """A metric with its standard error, None: the one that selects; nothing where the score has not got it."""
    metric = metric or score.selecting
    return shown_value(metric, score.metrics[metric]) if metric in score.metrics else ""


def shown_value(metric: str, value: MetricValue) -> str:
    """E.g. `95.12% ± 0.61` for a share, `0.1834 ± 0.0102` otherwise."""
    return in_words(metric, value.value, value.stderr)
