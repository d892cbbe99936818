"""The tables of what `soup inspect` found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from soupcli.figures.page import html
from soupcli.report.tables import Column, barrier_table, cause_title, file_table, findings, place_table

if TYPE_CHECKING:
    from soupcli.report.report import Report


def verdicts(report: Report) -> Iterable[str]:
    """Whether the checkpoints can be mixed and should be, and why not."""
    found = report.inspection
    if found is None:
        return
    if found.refused is not None:
        yield html.paragraph(f"These checkpoints cannot be mixed: {found.refused}", "warning")
    headings = ("cause", "what was found", "accused", "what it means", "what to do")
    columns = [Column(heading) for heading in headings]
    rows = [[cause_title(of), of.evidence, ", ".join(of.accused), of.words, of.remedy] for of in found.verdicts]
    if rows:
        yield html.table("Causes that there is evidence of", columns, rows, words=True)
    elif found.mixable:
        yield html.paragraph("No problem found.")


def checkpoints(report: Report) -> Iterable[str]:
    """The content of the files, and their differences."""
    found = report.inspection
    if found is None:
        return
    yield html.table_of(file_table(report, found))
    yield from (html.paragraph(line) for lines in findings(found) for line in lines)
    if found.geometry is not None and len(found.geometry.paths) > 1:
        yield html.table_of(place_table(found.geometry))


def barriers(report: Report) -> Iterable[str]:
    """Half way from each ingredient to the mean of all."""
    if report.inspection is not None:
        for of in report.inspection.barriers:
            yield html.table_of(barrier_table(report, of, list(of.mean)))
