"""The angle between every two ingredients, and their spread in each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from soupcli.figures.figure import Cells, Figure, Mark, Panel, categories, named, printable, scaled, short_names
from soupcli.report.inspection import Distances, Inspection
from soupcli.report.tables import cause_title

if TYPE_CHECKING:
    from soupcli.figures.reports import Reports

WIDTH, HEIGHT = 620.0, 620.0  # of the largest heat map


def figure(reports: Reports) -> Figure:
    """A heat map of angles, and a panel of layers. Raises UsageError if no report has a geometry."""
    source = reports.having("inspection", wanted="geometry", command="soup inspect --ckpts P... --report FILE")
    inspection = source.report.inspection or Inspection(mixable=False, checkpoints=[])
    found = inspection.geometry
    if found is None:
        why = inspection.refused or "they could not be measured"
        raise reports.lacking("geometry", f"these checkpoints cannot be mixed: {why}")
    seen = f"between offsets from {found.base}" if found.offset_angles else "between whole weights"
    spread = {layer: value for layer, value in found.layer_spread.items() if _finite(value) is not None}
    panels = (*([_angles(found)] if found.angles else []), *([_layers(spread)] if spread else []))
    if not panels:
        raise reports.lacking("geometry", f"it lists no pairs of {len(found.paths)} ingredients")
    return Figure(
        kind="geometry",
        title="Angles between ingredients",
        caption=printable(
            f"Angles {seen} of {len(found.paths)} ingredients, in degrees. Whole weights of one start are far below "
            "90 degrees; of offsets, the wider the angle the less two ingredients have in common. The spread of a "
            "layer is the distance of the ingredients from their mean, relative to the mean's length."
            f"{_verdicts(inspection)}"
        ),
        panels=panels,
        columns=1,
    )


def _verdicts(found: Inspection) -> str:
    """Causes that were found, how sure they are, and whom they accuse."""
    said = [f"{cause_title(of)}{': ' if of.accused else ''}{', '.join(of.accused)}" for of in found.verdicts]
    return f" Verdict: {'; '.join(said)}." if said else ""


def _angles(found: Distances) -> Panel:
    rows = (found.offset_angles or found.angles)[::-1]  # drawn from below
    count = len(found.paths)
    values = tuple(
        tuple(None if number == count - 1 - place else _finite(value) for number, value in enumerate(row))
        for place, row in enumerate(rows)
    )
    names = tuple(
        tuple(
            printable(f"{one} and {other}: {value or 0.0:.1f}°") for other, value in zip(found.paths, row, strict=True)
        )
        for one, row in zip(found.paths[::-1], values, strict=True)
    )
    edges = tuple(number - 0.5 for number in range(count + 1))
    side = min(WIDTH, max(240.0, 30.0 * count))
    labels = short_names(found.paths)
    known = [value for row in values for value in row if value is not None]
    return Panel(
        title="Angles between offsets" if found.offset_angles else "Angles between whole weights",
        x=categories("ingredient", labels, width=side),
        y=categories("ingredient", labels[::-1], width=side, slanted=False),
        cells=Cells(edges, edges, values, names, scaled("angle (degrees)", known, margin=0.0), "height"),
        width=side,
        height=side,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _layers(spread: Mapping[str, float | None]) -> Panel:
    marks = [
        Mark("kept", number, 100 * (value or 0.0), printable(f"{layer}: {100 * (value or 0.0):.2f}%"))
        for number, (layer, value) in enumerate(spread.items())
    ]
    width = min(860.0, max(300.0, 22.0 * len(marks)))
    return Panel(
        title="Spread of each layer",
        x=categories("layer", [named(layer) for layer in spread], width=width),
        y=scaled("spread (% of the mean's length)", [0.0, *(mark.y for mark in marks)]),
        marks=tuple(marks),
        width=width,
        height=200,
    )
