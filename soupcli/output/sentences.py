"""Sentences of a report: how sure a difference is, what a gate needs, what a forward pass costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.recipe.gates import GAIN
from soupcli.report.tables import (
    metric_of,
    other_side,
    selected_on,
)
from soupcli.wording import SHARES, counted

if TYPE_CHECKING:
    from soupcli.report.comparisons import Comparison, Flops, GateResult
    from soupcli.report.report import Report
    from soupcli.report.scores import ClassOrder


def sentences(report: Report, comparisons: Sequence[Comparison]) -> list[str]:
    """Return a sentence for each set, about its selecting metric. It begins with the verdict."""
    scores = {part.path: part.scores for part in (*report.ingredients, report.soup) if part is not None}
    found = []
    for of in comparisons:
        if of.metric == metric_of(report, of.set):
            how = selected_on(of) if of.set in report.selecting_sets else ""
            value = scores[of.soup][of.set][of.metric].value
            found.append(f"{of.verdict} on {where(of)}{how}: {sentence(of, value)}")
    return found


def where(of: Comparison | GateResult) -> str:
    """Return the set's name, followed by the metric unless that is accuracy."""
    return of.set if of.metric == "accuracy" else f"{of.set} {of.metric}"


def sentence(of: Comparison, soup: float | None) -> str:
    """Return e.g. `soup 97.2% vs best 96.7%: +0.5 (95% interval +0.1 to +0.9, p = 0.01) on 4,000 examples`."""
    factor, unit = (100, "%") if of.metric in SHARES else (1, "")
    digits = _digits(of, factor)

    def signed_value(value: float | None) -> str:
        return f"{(value or 0.0) * factor:+.{digits}f}"

    sure = []
    if of.low is not None:
        sure.append(f"95% interval {signed_value(of.low)} to {signed_value(of.high)}")
    if of.p is not None:
        sure.append("p < 0.001" if of.p < 0.001 else f"p = {of.p:.2g}")
    how_sure = f" ({', '.join(sure)})" if sure else ""
    over = f" on {counted(of.n, 'token' if of.metric == 'perplexity' else 'example')}" if of.n is not None else ""
    own, difference = (soup or 0.0) * factor, (of.difference or 0.0) * factor
    sides = f"soup {own:.{digits}f}{unit} vs {other_side(of)}"
    return f"{sides} {own - difference:.{digits}f}{unit}: {signed_value(of.difference)}{how_sure}{over}"


def _digits(of: Comparison, factor: int) -> int:
    """Return as few digits as keep the difference within a quarter and every end of the interval off zero."""
    least = 4
    if factor == 100:
        narrow = of.low is None or of.high is None or 0 < of.high - of.low < 0.004
        lost = any(end and not round(end * factor, 1) for end in (of.low, of.high))
        least = 2 if narrow or lost else 1
    difference = (of.difference or 0.0) * factor
    enough = (n for n in range(least, least + 3) if abs(round(difference, n) - difference) <= abs(difference) / 4)
    return next(enough, least + 3)


def describe_classes(order: ClassOrder) -> str:
    """Return e.g. `3 classes by the network's class names: bird 1, cat 2, dog 0`."""
    first = [f"{name} {index}" for name, index in list(order.index.items())[:5]]
    which = f": {', '.join(first)}{', ...' if len(order.index) > 5 else ''}" if first else ""
    return f"{order.count} classes by {order.by}{which}" if order.count is not None else f"by {order.by}"


UNITS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def cost_of(flops: Flops) -> str:
    """Return the FLOPs of a forward pass and of ensembles as a sentence."""
    costs: dict[str, float] = {}
    if flops.ensemble_of_members is not None and flops.ensemble_of_members != flops.ensemble:
        costs["an ensemble of the members"] = flops.ensemble_of_members
    costs |= {f"an ensemble of all {flops.ingredients}": flops.ensemble, **flops.beside}
    beside = ", ".join(f"{name} {_shown(cost)} ({cost / flops.forward:.4g} x)" for name, cost in costs.items())
    return f"forward pass of one example of {flops.set}: {_shown(flops.forward)}; {beside}"


def _shown(flops: float) -> str:
    """Return e.g. `5.645 TFLOP`."""
    unit, size = next(((unit, size) for unit, size in UNITS if flops >= size), ("", 1.0))
    return f"{flops / size:.4g} {unit}FLOP"


def describe_gate(gate: GateResult) -> str:
    """Return e.g. `test >= best - 0.5: 75.90%, best 76.67%: -0.77, at least -0.50 is needed`."""
    return f"{where(gate)} {gate.gate}: {gate.reason}"


def describe_result(gate: GateResult) -> str:
    """Return e.g. `gate not met: test >= best - 0.5: ...`."""
    name = "required gain" if gate.key == GAIN else "gate"
    return f"{name} {MET[gate.met]}: {describe_gate(gate)}"


MET = {True: "met", False: "not met", None: "open"}


BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40


def draw_curves(curves: dict[str, Sequence[float]]) -> str:
    """Return one line per curve, `fitted   █▅▃▂▁ 0.3121`, all on one scale. Long curves show their latest values."""
    shown = {name: values[-WIDTH:] for name, values in curves.items()}
    everything = [value for values in shown.values() for value in values]
    low, high = min(everything), max(everything)
    widest = max(len(name) for name in curves)
    return "\n".join(
        f"{name:<{widest}} {''.join(_bar(value, low, high) for value in values)} {values[-1]:.4f}"
        for name, values in shown.items()
    )


def describe_curves(curves: dict[str, Sequence[float]]) -> str:
    """Return the latest values, `fitted 0.3121, held out 0.3344`."""
    return ", ".join(f"{name} {values[-1]:.4f}" for name, values in curves.items())


def _bar(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return BARS[round(share * (len(BARS) - 1))]
