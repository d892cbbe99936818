"""Tables of scores: one row for each set of weights, one column for each validation set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.evaluation.score import is_higher_better
from soupcli.output.console import Table
from soupcli.recipe.gates import GAIN
from soupcli.wording import SHARES
from soupcli.wording import shown as in_words

if TYPE_CHECKING:
    from soupcli.evaluation.compare import Side
    from soupcli.evaluation.score import Score
    from soupcli.metrics.metric import MetricValue
    from soupcli.report.comparisons import Comparison, Flops, GateResult
    from soupcli.report.scores import ClassOrder


def describe_classes(order: ClassOrder) -> str:
    """E.g. `3 classes by the network's class names: bird 1, cat 2, dog 0`."""
    first = [f"{name} {index}" for name, index in list(order.index.items())[:5]]
    which = f": {', '.join(first)}{', ...' if len(order.index) > 5 else ''}" if first else ""
    return f"{order.count} classes by {order.by}{which}" if order.count is not None else f"by {order.by}"


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
    table = Table(first, *(f">{_head(rows, name, metric)}" for name, metric in columns))
    for label, scores in rows:
        table.add(label, *(shown(scores[name], metric) if name in scores else "" for name, metric in columns))
    return table


def _head(rows: Sequence[tuple[str, Mapping[str, Score]]], name: str, metric: str | None) -> str:
    """The set, and the metric beside the one that selects; metrics that are better when lower say so."""
    score = next((scores[name] for _, scores in rows if name in scores), None)
    if score is None or is_higher_better(metric or score.selecting, score):
        return name if metric is None else f"{name} {metric}"
    return f"{name} {metric or score.selecting} (lower is better)"


def shown(score: Score, metric: str | None = None) -> str:
    """A metric with its standard error, None: the one that selects; nothing where the score has not got it."""
    metric = metric or score.selecting
    return shown_value(metric, score.metrics[metric]) if metric in score.metrics else ""


def shown_value(metric: str, value: MetricValue) -> str:
    """E.g. `95.12% ± 0.61` for a share, `0.1834 ± 0.0102` otherwise."""
    return in_words(metric, value.value, value.stderr)


def sentences(comparisons: list[Comparison], soup: Side, best: Side, *, selected: str | None = None) -> list[str]:
    """One for each set, of its first metric; `selected`: the set that selected the soup, which flatters it there."""
    found = []
    for of in comparisons:
        if of.metric == soup.scores[of.set].selecting:
            of_how_many = f", of {of.tried} tried" if of.tried is not None else ""
            how = f" (selected on it{of_how_many})" if of.set == selected else ""
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
    fairly = " (cross-fitted)" if comparison.cross_fitted else ""
    return f"soup {values[0]} vs best{fairly} {values[1]}: {shown(comparison.difference, '+')}{how_sure}{over}"


def _digits(comparison: Comparison) -> int:
    """Of a per cent: one, or two where the interval is narrow enough for them to say something."""
    if comparison.low is None or comparison.high is None:
        return 2
    return 2 if 0 < comparison.high - comparison.low < 0.004 else 1


BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40


def draw_curves(curves: dict[str, Sequence[float]]) -> str:
    """`fitted   █▅▃▂▁ 0.3121`, a line for each curve, all on one scale; the latest values where there are many."""
    shown = {name: values[-WIDTH:] for name, values in curves.items()}
    everything = [value for values in shown.values() for value in values]
    low, high = min(everything), max(everything)
    widest = max(len(name) for name in curves)
    return "\n".join(
        f"{name:<{widest}} {''.join(_bar(value, low, high) for value in values)} {values[-1]:.4f}"
        for name, values in shown.items()
    )


def describe_curves(curves: dict[str, Sequence[float]]) -> str:
    """`fitted 0.3121, held out 0.3344`: the latest values."""
    return ", ".join(f"{name} {values[-1]:.4f}" for name, values in curves.items())


def _bar(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return BARS[round(share * (len(BARS) - 1))]


UNITS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def cost_of(flops: Flops) -> str:
    """The count as a sentence."""
    costs: dict[str, float] = {}
    if flops.ensemble_of_members is not None and flops.ensemble_of_members != flops.ensemble:
        costs["an ensemble of the members"] = flops.ensemble_of_members
    costs |= {f"an ensemble of all {flops.ingredients}": flops.ensemble, **flops.beside}
    beside = ", ".join(f"{name} {_shown(cost)} ({cost / flops.forward:.4g} x)" for name, cost in costs.items())
    return f"forward pass of one example of {flops.set}: {_shown(flops.forward)}; {beside}"


def _shown(flops: float) -> str:
    """E.g. `5.645 TFLOP`."""
    unit, size = next(((unit, size) for unit, size in UNITS if flops >= size), ("", 1.0))
    return f"{flops / size:.4g} {unit}FLOP"


def describe_gate(gate: GateResult) -> str:
    """E.g. `test >= best - 0.5: 75.90%, best 76.67%: -0.77, at least -0.50 is needed`."""
    return f"{where(gate)} {gate.gate}: {gate.reason}"


def describe_result(gate: GateResult) -> str:
    """E.g. `gate not met: test >= best - 0.5: ...`."""
    name = "required gain" if gate.key == GAIN else "gate"
    return f"{name} {MET[gate.met]}: {describe_gate(gate)}"


MET = {True: "met", False: "not met", None: "open"}
