"""The tables of what `soup inspect` found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from soupcli.figures.page import html
from soupcli.figures.page.html import Column
from soupcli.wording import shown

if TYPE_CHECKING:
    from soupcli.report.inspection import Barriers, Inspection
    from soupcli.report.report import Report
    from soupcli.report.scores import MetricScore


def verdicts(report: Report) -> Iterable[str]:
    """Whether the checkpoints can be mixed and should be, and why not."""
    found = report.inspection
    if found is None:
        return
    if found.refused is not None:
        yield html.paragraph(f"These checkpoints cannot be mixed: {found.refused}", "warning")
    columns = [Column("cause"), Column("what was found"), Column("what it means"), Column("what to do")]
    rows = [[of.cause, of.evidence, of.words, of.remedy] for of in found.verdicts]
    if rows:
        yield html.table("Causes that there is evidence of", columns, rows, words=True)
    elif found.mixable:
        yield html.paragraph("No problem found.")


def checkpoints(report: Report) -> Iterable[str]:
    """What the files hold, and where one of them differs."""
    found = report.inspection
    if found is None:
        return
    columns = [Column("checkpoint"), Column("tensors", is_number=True), Column("parameters", is_number=True)]
    columns += [Column("dtypes"), Column("tied weights")]
    rows = [
        [of.path, str(of.tensors), f"{of.parameters:,}", ", ".join(of.dtypes), "; ".join(map(" = ".join, of.tied))]
        for of in found.checkpoints
    ]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    yield html.table("What the files hold", columns, rows)
    if found.differences:
        headings = [Column(name) for name in ("checkpoint", "what", "tensor", "found", "most have")]
        differing = [[of.path, of.kind, of.tensor or "", of.found, of.expected] for of in found.differences]
        yield html.table("What one has otherwise than most", headings, differing)
    yield html.pairs(_facts(found))


def _facts(found: Inspection) -> Iterable[tuple[str, str]]:
    yield from (("the same weights", " = ".join(paths)) for paths in found.duplicates)
    for path, tensors in found.not_finite.items():
        yield from ((f"{path}: {name}", f"not finite: {value}") for name, value in tensors.items())
    if found.integers:
        yield "never averaged, and different", ", ".join(found.integers)
    yield from ((f"setting {name}", ", ".join(values)) for name, values in found.settings.items())
    if found.geometry is not None and len(found.geometry.groups) > 1:
        yield from (("of a common start", ", ".join(group)) for group in found.geometry.groups)


def barriers(report: Report) -> Iterable[str]:
    """Half way from each ingredient to the mean of all."""
    if report.inspection is not None:
        yield from (_barrier(report, of) for of in report.inspection.barriers)


def _barrier(report: Report, of: Barriers) -> str:
    alone = {ingredient.path: ingredient.scores.get(of.set, {}) for ingredient in report.ingredients}
    metrics = list(of.mean)
    columns = [Column("ingredient"), *(Column(f"{metric}, alone", is_number=True) for metric in metrics)]
    columns += [Column(f"{metric}, half way", is_number=True) for metric in metrics]
    columns += [Column(f"{of.metric} gets worse by", is_number=True)]

    rows = []
    for path, half in of.half_way.items():
        height = of.height.get(path)
        own = alone.get(path, {})
        rows.append(
            [
                path,
                *(_cell(own, metric) for metric in metrics),
                *(_cell(half, metric) for metric in metrics),
                "" if height is None else f"{height:+.4f}",
            ]
        )
    mean = [_cell(of.mean, metric) for metric in metrics]
    rows.append(["the mean of all", *mean, *([""] * len(metrics)), ""])
    return html.table(f"On {of.set}: half way between each ingredient and the mean of all", columns, rows)


def _cell(scores: Mapping[str, MetricScore], metric: str) -> str:
    score = scores.get(metric)
    return "" if score is None else shown(metric, score.value, score.stderr)
