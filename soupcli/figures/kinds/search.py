"""The course of a search for coefficients: the best value so far, and the mean of each generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.figures.figure import Figure, Line, Mark, Panel, printable, scaled
from soupcli.figures.reports import Reports, factor, titled
from soupcli.wording import shown

if TYPE_CHECKING:
    from soupcli.report.soups import CoefficientSearch


def figure(reports: Reports) -> Figure:
    """One panel, from the start on. Raises UsageError if no report has a search for coefficients."""
    wanted, command = "search for coefficients", "soup learned --ckpts P... --val V --by search"
    source = reports.having("coefficient_search", wanted=wanted, command=command)
    found, report = source.report.coefficient_search, source.report
    assert found is not None
    several = report.objective is not None
    sets = ", ".join(report.selecting_sets)
    metric = "objective" if several else reports.metric(report.selecting_set or "")
    return Figure(
        kind="search",
        title="The search for coefficients",
        caption=printable(
            f"{found.evaluations} mixtures in generations of {found.population}, drawn by {found.algorithm} (seed "
            f"{found.seed}) and judged on {sets}. Filled: the best so far; rings: the mean of each generation. The "
            "straight line is the start."
        ),
        panels=(_panel(found, metric, "objective" if several else titled(report.selecting_set or "", metric)),),
        legend=(("kept", "best so far"), ("left-out", "mean of the generation")),
        columns=1,
    )


def _panel(found: CoefficientSearch, metric: str, title: str) -> Panel:
    by = factor(metric)
    best = [Mark("kept", x, y * by, _words("best", x, metric, y)) for x, y in _best(found)]
    mean = [Mark("left-out", x, y * by, _words("mean", x, metric, y)) for x, y in _means(found)]
    marks = [*best, *mean]
    lines = [Line((tuple((mark.x, mark.y) for mark in some),), "solid") for some in (best, mean) if some]
    if found.start is not None and best:
        ends = (best[0].x, best[-1].x)
        lines.append(Line((tuple((x, found.start * by) for x in ends),), "guide"))
    return Panel(
        title="",
        x=scaled("mixtures evaluated", [mark.x for mark in marks]),
        y=scaled(title, [mark.y for mark in marks]),
        marks=tuple(marks),
        lines=tuple(lines),
    )


def _best(found: CoefficientSearch) -> list[tuple[float, float]]:
    values = [(1.0, found.start), *((float(one.evaluations), one.best_so_far) for one in found.generations)]
    return [(x, y) for x, y in values if y is not None]


def _means(found: CoefficientSearch) -> list[tuple[float, float]]:
    return [(float(one.evaluations), one.mean) for one in found.generations if one.mean is not None]


def _words(what: str, evaluations: float, metric: str, value: float) -> str:
    return f"{what} after {evaluations:g}: {shown(metric, value, None)}"
