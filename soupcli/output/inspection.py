"""The text of `soup inspect`: files, findings, distances, barriers and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from soupcli.output.console import Paragraph
from soupcli.report.tables import (
    Table,
    barrier_table,
    cause_title,
    file_table,
    findings,
    layer_table,
    metric_of,
    place_table,
)

if TYPE_CHECKING:
    from soupcli.report.inspection import Inspection
    from soupcli.report.report import Report

Part = Table | Sequence[str | Paragraph]
MOST_LINES = 8  # of one kind of finding; the report has all
MOST_LAYERS = 6


def inspection_text(report: Report, found: Inspection) -> Iterator[Part]:
    yield file_table(report, found)
    for lines in findings(found):
        if lines:
            more = f"... and {len(lines) - MOST_LINES} more: --json lists them"
            yield [*lines[:MOST_LINES], *([more] if len(lines) > MOST_LINES else [])]
    if found.geometry is not None and len(found.geometry.paths) > 1:
        yield place_table(found.geometry)
        if len(found.geometry.layer_angles) > 1:
            yield layer_table(found.geometry, MOST_LAYERS)
    for barrier in found.barriers:
        yield barrier_table(report, barrier, [metric_of(report, barrier.set)])
    yield _verdict_lines(found)


def _verdict_lines(found: Inspection) -> list[str | Paragraph]:
    lines: list[str | Paragraph] = [f"cannot be mixed: {found.refused}"] if found.refused is not None else []
    for of in found.verdicts:
        accused = [f"accused: {', '.join(of.accused)}"] if of.accused else []
        lines.append(Paragraph(f"verdict: {cause_title(of)}", is_bold=True))
        said = [of.words, f"evidence: {of.evidence}", *accused, f"to do: {of.remedy}"]
        lines += [Paragraph(text, indent=2) for text in said]
    if not lines:
        limits = "" if found.barriers else " in the weights: --val SET looks at scores too"
        lines.append(f"verdict: no problem found{limits}")
    return lines
