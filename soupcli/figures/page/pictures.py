"""The page of a report, and each of its figures as a file, for experiment trackers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.figures.draw import svg
from soupcli.figures.page.page import page
from soupcli.figures.registry import possible
from soupcli.figures.reports import ReadReport, gather

if TYPE_CHECKING:
    from soupcli.report.report import Report


def page_and_figures(report: Report) -> tuple[str, dict[str, str]]:
    """Return the HTML page, and each figure of the report as SVG, by its kind."""
    reports = gather([ReadReport(Path("report.json"), report)])
    return page(reports), {figure.kind: svg.document(figure, "light") for figure in possible(reports)[0]}
