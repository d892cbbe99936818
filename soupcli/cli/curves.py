"""The curves of a fit as text: one line for each, for a terminal that is redrawn and for a log."""

from __future__ import annotations

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40


def drawn(curves: dict[str, Sequence[float]]) -> str:
    """`fitted   █▅▃▂▁ 0.3121`, a line for each curve, all on one scale; the latest values where there are many."""
    shown = {name: values[-WIDTH:] for name, values in curves.items()}
    everything = [value for values in shown.values() for value in values]
    low, high = min(everything), max(everything)
    widest = max(len(name) for name in curves)
    return "\n".join(
        f"{name:<{widest}} {''.join(_bar(value, low, high) for value in values)} {values[-1]:.4f}"
        for name, values in shown.items()
    )


def told(curves: dict[str, Sequence[float]]) -> str:
    """`fitted 0.3121, held out 0.3344`: the latest values."""
    return ", ".join(f"{name} {values[-1]:.4f}" for name, values in curves.items())


def _bar(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return BARS[round(share * (len(BARS) - 1))]
