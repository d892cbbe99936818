"""A soup held against the best ingredient, for the report and in a sentence, and how far its scores can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from soupcli.progress import Progress, silent
from soupcli.report.comparisons import Comparison, GateResult
from soupcli.validation.metrics import is_higher_better
from soupcli.validation.paired import difference
from soupcli.validation.score import Score
from soupcli.wording import SHARES


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


def sentences(comparisons: list[Comparison], soup: Side, best: Side, *, selected: str | None = None) -> list[str]:
    """One for each set, of its first metric; `selected`: the set that selected the soup, which flatters it there."""
    found = []
    for of in comparisons:
        if of.metric == soup.scores[of.set].selecting:
            how = " (selected on it)" if of.set == selected else ""
            values = (side.scores[of.set].metrics[of.metric].value for side in (soup, best))
            found.append(f"{where(of)}{how}: {sentence(of, *values)}")
    return found


def where(of: Comparison | GateResult) -> str:
    """The set, and the metric where it is another than accuracy."""
    return of.set if of.metric == "accuracy" else f"{of.set} {of.metric}"


def sentence(comparison: Comparison, soup: float | None, best: float | None) -> str:
    """E.g. `soup 97.2% vs best 96.7%: +0.5 (95% interval +0.1 to +0.9, p = 0.01) on 4,000 examples`."""
    metric = comparison.metric
    factor, digits, unit = (100, _digits(comparison), "%") if metric in SHARES else (1, 4, "")

    def shown(value: float | None, sign: str = "") -> str:
        return f"{round((value or 0.0) * factor, digits) + 0.0:{sign}.{digits}f}"

    values = [shown(value) + unit for value in (soup, best)]
    sure = []
    if comparison.low is not None:
        sure.append(f"95% interval {shown(comparison.low, '+')} to {shown(comparison.high, '+')}")
    if comparison.p is not None:
        sure.append("p < 0.001" if comparison.p < 0.001 else f"p = {comparison.p:.2g}")
    how_sure = f" ({', '.join(sure)})" if sure else ""
    things = "tokens" if metric == "perplexity" else "examples"
    over = f" on {comparison.n:,} {things}" if comparison.n is not None else ""
    return f"soup {values[0]} vs best {values[1]}: {shown(comparison.difference, '+')}{how_sure}{over}"


def _digits(comparison: Comparison) -> int:
    """Of a per cent: one, or two where the interval is narrow enough for them to say something."""
    if comparison.low is None or comparison.high is None:
        return 2
    return 2 if 0 < comparison.high - comparison.low < 0.004 else 1
