"""Angle between two ingredients against what their mean gains over the better one (the paper's Figure 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.figures.figure import Figure, Line, Mark, Panel, printable, scaled
from soupcli.figures.reports import Reports, factor
from soupcli.wording import SHARES, signed

if TYPE_CHECKING:
    from soupcli.report.surveys import Pair

INTERVAL = 2 * 1.96  # standard errors that a 95% interval is wide


def figure(reports: Reports) -> Figure:
    """A panel for each set. Raises UsageError if no report has pairs."""
    source = reports.having("pairs", wanted="pairs", command="soup pairs --ckpts P... --base START --val V")
    found = source.report.pairs
    assert found is not None
    panels = [_panel(found.pairs, name, reports.metric(name)) for name in source.report.sets]
    sample = "" if len(found.pairs) == found.possible else f" of {found.possible}"
    return Figure(
        kind="angles",
        title="Angle against gain",
        caption=printable(
            f"Each dot is one of {len(found.pairs)}{sample} pairs: across, the angle between their offsets from "
            f"{found.start}; up, the score of their mean less that of the better of the two. Above the dashed line the "
            "mean is better than both. Lines through dots are about one standard error to each side."
        ),
        panels=tuple(panels),
        legend=(("ingredient", f"{len(found.pairs)} pairs"),),
        columns=1 if len(panels) == 1 else 2,
    )


def _panel(pairs: list[Pair], name: str, metric: str) -> Panel:
    marks = [mark for pair in pairs if (mark := _mark(pair, name, metric)) is not None]
    unit = "points" if metric in SHARES else "more is better"
    x = scaled("angle (degrees)", [mark.x for mark in marks])
    reach = [mark.y + side * (mark.y_error or 0.0) for mark in marks for side in (-1, 1)]
    return Panel(
        title="",
        x=x,
        y=scaled(f"gain in {metric} on {name} ({unit})", [0.0, *reach]),
        marks=tuple(marks),
        lines=(Line((((x.low, 0.0), (x.high, 0.0)),), "guide", "no gain"),),
    )


def _mark(pair: Pair, name: str, metric: str) -> Mark | None:
    """Positive if the mean is better, for metrics of either direction."""
    gain = next((of for of in pair.gains if (of.set, of.metric) == (name, metric)), None)
    if gain is None or gain.difference is None or pair.angle is None:
        return None
    by = factor(metric) * (1 if gain.higher_is_better else -1)
    error = None if gain.low is None or gain.high is None else (gain.high - gain.low) / INTERVAL * factor(metric)
    words = f"{' + '.join(pair.members)}: {pair.angle:.1f}°, {signed(metric, gain.difference)} against {gain.best}"
    return Mark("ingredient", pair.angle, gain.difference * by, printable(words), None, error)
