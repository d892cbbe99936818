"""The greedy path: the score of members and candidate together, step by step, beside each candidate's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.figures.figure import Figure, Line, Mark, Panel, Role, categories, printable, scaled, short_names
from soupcli.figures.reports import Reports, factor, score_of, titled
from soupcli.report.scores import MetricScore
from soupcli.report.tables import decision, reached, tried
from soupcli.wording import shown

if TYPE_CHECKING:
    from soupcli.report.report import Report
    from soupcli.report.soups import SearchStep


def figure(reports: Reports) -> Figure:
    """One panel. Raises UsageError if no report has steps."""
    report = reports.having("steps", wanted="greedy steps", command="soup greedy").report
    selecting = report.selecting_set or reports.sets[0]
    metric = reports.metric(selecting) if report.objective is None else "objective"
    selecting = selecting if report.objective is None else " and ".join(report.objective.weights)
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
            role: Role = "kept" if step.accepted else "left-out"
            marks.append(Mark(role, number, level * by, printable(_words(step, metric))))
    if not marks:
        marks = [Mark("ingredient", 0, 0.0, "")]
    width = min(860.0, max(340.0, 30.0 * len(report.steps)))
    names = [
        f"− {name}" if step.action == "remove" else name
        for name, step in zip(short_names([step.candidate for step in report.steps]), report.steps, strict=True)
    ]
    forward = all(step.action == "add" for step in report.steps)
    kept = sum(step.accepted for step in report.steps)
    given_up = any(step.score is None and step.bound is not None for step in report.steps)
    panel = Panel(
        title="",
        x=categories("candidate, in the order in which they were tried", names, width=width),
        y=scaled(titled(selecting, metric), [value for mark in marks for value in _reach(mark)], margin=0.08),
        marks=tuple(marks),
        lines=(Line((_staircase(report, by),), "solid", "score of the members"),),
        width=width,
        height=280,
    )
    return Figure(
        kind="path",
        title="The greedy path",
        caption=printable(
            f"{len(report.steps)} steps, of which {kept} were taken. Grey dots are the score on {selecting} of a "
            "candidate alone, with one standard error to each side; the line is the score of the members so far; a "
            f"ring is {'members and candidate together' if forward else 'what was tried'}, and not taken."
            + ("" if forward else " A name after a minus was tried without.")
            + (" Where an evaluation was given up, the ring is its score at best." if given_up else "")
        ),
        panels=(panel,),
        legend=(
            ("ingredient", "candidate alone"),
            ("kept", "kept: members with it" if forward else "taken"),
            ("left-out", "left out: members with it" if forward else "not taken"),
        ),
        columns=1,
    )


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
