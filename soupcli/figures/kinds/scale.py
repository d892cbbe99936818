"""Scores from a base through a soup and beyond it: the points that `--scale` tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.figures.kinds.alpha import along, figure_along

if TYPE_CHECKING:
    from soupcli.figures.figure import Figure
    from soupcli.figures.reports import Reports


def figure(reports: Reports) -> Figure:
    """A panel for each set that selected. Raises UsageError if no report has points."""
    wanted, command = "points of a way through a soup", "soup greedy --ckpts P... --base INIT --scale 0:1.5:0.1 --val V"
    report = reports.having("scale", wanted=wanted, command=command).report
    found = report.scale
    assert found is not None
    points = [(point.scale, point.scores) for point in found.points]
    caption = (
        f"{len(points)} mixtures: at 0 the base, {found.base.path}, at 1 the soup, each scored on "
        f"{', '.join(found.points[0].scores)}, which chose among them. Lines through marks are one standard error "
        "to each side; the filled mark is the one that was taken."
    )
    panels = [along("scale", points, found.scale, name, reports.metric(name)) for name in found.points[0].scores]
    return figure_along("scale", "From the base through the soup", caption, panels)
