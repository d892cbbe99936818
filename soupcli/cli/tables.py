"""Tables of scores: one row for each set of weights, one column for each validation set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from soupcli.cli.console import Table
from soupcli.validation.score import MetricValue, Score

SHARES = {"accuracy", "top5"}  # shown in per cent


def score_table(rows: Sequence[tuple[str, Mapping[str, Score]]], sets: Sequence[str], *, first: str) -> Table:
    """`first` heads the names of the rows; the last row is marked where it is a soup's."""
    table = Table(first, *(f">{name}" for name in sets))
    for name, scores in rows:
        table.add(name, *(shown(scores[s]) if s in scores else "" for s in sets))
    return table


def shown(score: Score) -> str:
    """The selecting metric with its standard error."""
    return shown_value(score.selecting, score.metrics[score.selecting])


def shown_value(metric: str, value: MetricValue) -> str:
    """E.g. `95.12% ± 0.61` for a share, `0.1834 ± 0.0102` otherwise."""
    if math.isnan(value.value):
        return "NaN"
    factor, digits, unit = (100, 2, "%") if metric in SHARES else (1, 4, "")
    error = f" ± {value.stderr * factor:.{digits}f}" if value.stderr is not None else ""
    return f"{value.value * factor:.{digits}f}{unit}{error}"
