"""Learned coefficients by layer, as a heat map: the share of each ingredient in each layer of the soup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.figures.figure import Axis, Cells, Figure, Panel, Ramp, categories, named, printable, short_names, ticks

if TYPE_CHECKING:
    from soupcli.figures.reports import Reports


def figure(reports: Reports) -> Figure:
    """One panel: layers from top to bottom, members from left to right. Raises UsageError if nothing was learned."""
    learned = [source.report for source in reports.sources if source.report.soup and source.report.soup.coefficients]
    if not learned:
        reports.having("learned", wanted="learned coefficients", command="soup learned")
    found = learned[0].soup.coefficients if learned and learned[0].soup else None
    assert found is not None, "a report with a fit has coefficients"
    layers, members = found.layers[::-1], found.members  # rows are drawn from below
    rows = tuple(tuple(float(value) for value in row) for row in found.alpha[::-1])
    names = tuple(
        tuple(printable(f"{layer}, {member}: {value:.4f}") for member, value in zip(members, row, strict=True))
        for layer, row in zip(layers, rows, strict=True)
    )
    width = min(860.0, max(300.0, 34.0 * len(members)))
    height = min(900.0, max(140.0, 22.0 * len(layers)))
    cells = Cells(
        x_edges=tuple(number - 0.5 for number in range(len(members) + 1)),
        y_edges=tuple(number - 0.5 for number in range(len(layers) + 1)),
        values=rows,
        names=names,
        scale=(scale := _scale([value for row in rows for value in row])),
        ramp=_ramp(scale),
    )
    shown = [named(layer) for layer in layers]
    panel = Panel(
        title="",
        x=categories("ingredient", short_names(members), width=width),
        y=categories("layer, the first one on top", shown, width=height, slanted=False),
        cells=cells,
        width=width,
        height=height,
    )
    return Figure(
        kind="coefficients",
        title="Learned coefficients by layer",
        caption=(
            f"{len(layers)} layers from top to bottom, {len(members)} ingredients from left to right; the colour is "
            f"the share of the ingredient in the layer. Every row sums to 1; equal shares would be "
            f"{1 / len(members):.3f}."
        ),
        panels=(panel,),
        columns=1,
    )


def _scale(values: list[float]) -> Axis:
    """From 0 on; to both sides of it if some are negative."""
    most = max([*map(abs, values), 1e-6])
    low = -most if min(values, default=0.0) < 0 else 0.0
    return Axis("coefficient", low, most, ticks(low, most, 5))


def _ramp(scale: Axis) -> Ramp:
    return "signed" if scale.low < 0 else "amount"
