"""The table of figures, by the name that `--kind` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from soupcli.errors import UsageError
from soupcli.figures.kinds import (
    alpha,
    angles,
    coefficients,
    correlations,
    geometry,
    landscape,
    path,
    scale,
    scores,
    search,
)

if TYPE_CHECKING:
    from soupcli.figures.figure import Figure
    from soupcli.figures.reports import Reports

KINDS: dict[str, Callable[[Reports], Figure]] = {
    "scores": scores.figure,
    "path": path.figure,
    "coefficients": coefficients.figure,
    "alpha": alpha.figure,
    "scale": scale.figure,
    "search": search.figure,
    "landscape": landscape.figure,
    "angles": angles.figure,
    "geometry": geometry.figure,
    "correlations": correlations.figure,
}


def possible(reports: Reports) -> tuple[list[Figure], list[UsageError]]:
    """Return the figures that can be drawn, and why scores cannot although ingredients were scored."""
    figures: list[Figure] = []
    missing: list[UsageError] = []
    scored = any(source.report.scores_ingredients for source in reports.sources)
    for kind, make in KINDS.items():
        if kind == "scores" and not scored:
            continue
        try:
            figures.append(make(reports))
        except UsageError as error:
            if kind == "scores" and reports.sets:
                missing.append(error)
    return figures, missing
