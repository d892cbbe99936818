"""The greedy path: the score of members and candidate together, and of each candidate, step by step."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from soupcli.figures.figure import Figure, Line, Mark, Panel, Role, categories, printable, rows, scaled, short_names
from soupcli.figures.reports import Reports, factor, score_of, titled
from soupcli.report.scores import MetricScore
from soupcli.report.tables import decision, reached, tried
from soupcli.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.figures.figure import Axis, Point
    from soupcli.report.report import Report
    from soupcli.report.soups import SearchStep


MANY = 16  # steps, past which their names stand one below the other


def figure(reports: Reports) -> Figure:
    """One panel: steps from left to right, many of them from above. Raises UsageError if no report has steps."""
    report = reports.having("steps", wanted="greedy steps", command="soup greedy").report
    selecting = report.selecting_set or reports.sets[0]
    metric = reports.metric(selecting) if report.objective is None else "objective"
    selecting = selecting if report.objective is None else " and ".join(report.objective.weights)
    by = factor(metric)
    marks = _marks(report, selecting, metric) or [Mark("ingredient", 0, 0.0, "")]
    stairs = _staircase(report, by)
    low, high = _rise(stairs, marks)
    beyond = sum(not low <= mark.y <= high for mark in marks)
    marks = [mark if low <= mark.y <= high else _at_edge(mark, low, high) for mark in marks]
    reach = [value for mark in marks for value in _reach(mark) if low <= value <= high]
    scores = scaled(titled(selecting, metric), [*reach, *(level for _, level in stairs)], margin=0.08)
    names = [
        f"− {name}" if step.action == "remove" else name
        for name, step in zip(short_names([step.candidate for step in report.steps]), report.steps, strict=True)
    ]
    return Figure(
        kind="path",
        title="The greedy path",
        caption=_caption(report, selecting, beyond),
        panels=(_panel(names, scores, marks, stairs),),
        legend=_legend(report),
        columns=1,
    )


def _marks(report: Report, selecting: str, metric: str) -> list[Mark]:
    """Of each step the candidate alone and what was tried with it; x is the step's number."""
    marks: list[Mark] = []
    by = factor(metric)
    for number, step in enumerate(report.steps):
        alone = _alone(report, step, selecting, metric)
        if alone is not None and alone.value is not None:
            error = None if alone.stderr is None else alone.stderr * by
            name = printable(f"{step.candidate} alone: {shown(metric, alone.value, alone.stderr)}")
            marks.append(Mark("ingredient", number, alone.value * by, name, None, error))
        level = step.score if step.score is not None else step.bound
        if level is not None:
            tested: Role = "left-out" if step.score is not None else "at-best"
            marks.append(Mark("kept" if step.accepted else tested, number, level * by, printable(_words(step, metric))))
    return marks


def _rise(stairs: Sequence[Point], marks: Sequence[Mark]) -> tuple[float, float]:
    """The scores that the axis shows: the members' rise, as much on either side of it, and a few standard errors."""
    levels = [level for _, level in stairs]
    if not levels:
        return -math.inf, math.inf
    errors = [mark.y_error for mark in marks if mark.y_error]
    reach = max(1.2 * (max(levels) - min(levels)), 4 * statistics.median(errors) if errors else 0.0)
    return (min(levels) - reach, max(levels) + reach) if reach else (-math.inf, math.inf)


def _at_edge(mark: Mark, low: float, high: float) -> Mark:
    return mark._replace(y=min(max(mark.y, low), high), y_error=None)


def _panel(names: Sequence[str], scores: Axis, marks: Sequence[Mark], stairs: Sequence[Point]) -> Panel:
    title, line = "candidate, in the order in which they were tried", "score of the members"
    if len(names) <= MANY:
        width = max(340.0, 30.0 * len(names))
        return Panel(
            title="",
            x=categories(title, names, width=width),
            y=scores,
            marks=tuple(marks),
            lines=(Line((tuple(stairs),), "solid", line),),
            width=width,
            height=280,
        )
    last = len(names) - 1
    return Panel(
        title="",
        x=scores,
        y=rows(title, names),
        marks=tuple(m._replace(x=m.y, y=last - m.x, x_error=m.y_error, y_error=None) for m in marks),
        lines=(Line((tuple((level, last - number) for number, level in stairs),), "solid", line),),
        width=420,
        height=15.0 * len(names),
    )


def _caption(report: Report, selecting: str, beyond: int) -> str:
    forward = all(step.action == "add" for step in report.steps)
    kept = sum(step.accepted for step in report.steps)
    return printable(
        f"{len(report.steps)} steps, of which {kept} were taken. Grey dots are the score on {selecting} of a "
        "candidate alone, with one standard error to each side; the line is the score of the members so far; a "
        f"ring is {'members and candidate together' if forward else 'what was tried'}, and not taken."
        + ("" if forward else " A name after a minus was tried without.")
        + (" A triangle is the best score that was left to reach when an evaluation was given up." * _gave_up(report))
        + (f" {beyond} marks lie beyond the axis and are drawn at its end." if beyond else "")
    )


def _gave_up(report: Report) -> bool:
    return any(step.score is None and step.bound is not None for step in report.steps)


def _legend(report: Report) -> tuple[tuple[Role, str], ...]:
    forward = all(step.action == "add" for step in report.steps)
    entries: list[tuple[Role, str]] = [
        ("ingredient", "candidate alone"),
        ("kept", "kept: members with it" if forward else "taken"),
        ("left-out", "left out: members with it" if forward else "not taken"),
    ]
    return tuple(entries + [("at-best", "given up: at best")] * _gave_up(report))


def _alone(report: Report, step: SearchStep, selecting: str, metric: str) -> MetricScore | None:
    """The score of a step's candidate alone; its objective if there is one."""
    if report.objective is not None:
        return MetricScore(value=report.objective.ingredients.get(step.candidate), stderr=None, n=None)
    own = {ingredient.path: ingredient.scores for ingredient in report.ingredients}
    return score_of(own.get(step.candidate, {}), selecting, metric)


def _reach(mark: Mark) -> tuple[float, ...]:
    error = mark.y_error or 0.0
    return mark.y - error, mark.y + error


def _words(step: SearchStep, metric: str) -> str:
    held = "" if step.threshold is None else f", at least {shown(metric, step.threshold, None)} was needed"
    return f"{tried(step)}: {reached(step, metric)}{held}: {decision(step)}"


def _staircase(report: Report, by: float) -> tuple[tuple[float, float], ...]:
    """The members' score after every step."""
    points: list[tuple[float, float]] = []
    for number, step in enumerate(report.steps):
        if step.accepted and step.score is not None:
            level = step.score * by
            points += [(float(number), points[-1][1])] if points else []
            points.append((float(number), level))
    if points:
        points.append((len(report.steps) - 0.5, points[-1][1]))
    return tuple(points)
