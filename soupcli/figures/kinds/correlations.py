"""Correlations of the scores on every two sets over the ingredients: sets without any need their own expert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.figures.figure import Axis, Cells, Figure, Panel, categories, named, printable, ticks
from soupcli.report.tables import expert_lines

if TYPE_CHECKING:
    from soupcli.figures.reports import Reports
    from soupcli.report.soups import Experts

SIDE, MOST = 48.0, 620.0  # of one cell, of the heat map


def figure(reports: Reports) -> Figure:
    """A heat map. Raises UsageError if no report has experts."""
    command = "soup greedy --strategy experts --val A B ..."
    found = reports.having("experts", wanted="correlations of sets", command=command).report.experts
    assert found is not None
    return Figure(
        kind="correlations",
        title="Which sets go together",
        caption=printable(
            f"Correlation of the scores on every two sets over {found.ingredients} ingredients. Sets are joined from "
            f"{found.threshold:g} on; each group has the ingredient that is best on it: "
            f"{'; '.join(expert_lines(found))}. A cell is empty if a set does not tell the ingredients apart."
        ),
        panels=(_panel(found),),
        columns=1,
    )


def _panel(found: Experts) -> Panel:
    count = len(found.sets)
    rows = found.correlations[::-1]  # drawn from below
    names = tuple(
        tuple(
            printable(f"{one} and {other}: {'undefined' if value is None else f'{value:+.2f}'}")
            for other, value in zip(found.sets, row, strict=True)
        )
        for one, row in zip(found.sets[::-1], rows, strict=True)
    )
    edges = tuple(number - 0.5 for number in range(count + 1))
    side = min(MOST, max(240.0, SIDE * count))
    labels = [named(name) for name in found.sets]
    scale = Axis("correlation", -1.0, 1.0, ticks(-1.0, 1.0, 4))
    return Panel(
        title="",
        x=categories("set", labels, width=side),
        y=categories("set", labels[::-1], width=side, slanted=False),
        cells=Cells(edges, edges, tuple(map(tuple, rows)), names, scale, "signed"),
        width=side,
        height=side,
    )
