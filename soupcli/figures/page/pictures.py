"""The page of a report and its figures as files of their own, for those who keep them elsewhere."""

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
    """The HTML page, and each figure that the report holds as SVG, by its kind."""
    reports = gather([ReadReport(Path("report.json"), report)])
    return page(reports), {figure.kind: svg.document(figure, "light") for figure in possible(reports)[0]}
