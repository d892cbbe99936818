"""Scores between a base and the mean of fine-tuned checkpoints, point by point (WiSE-FT, Wortsman et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.figures.figure import Figure, Line, Mark, Panel, Role, printable, scaled
from soupcli.figures.reports import Reports, factor, score_of, titled
from soupcli.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.report.scores import Scores


def figure(reports: Reports) -> Figure:
    """A panel for each set. Raises UsageError if no report has points."""
    wanted, command = "points between a base and a mean", "soup mix --ckpts P... --base INIT --alpha 0:1:0.1 --val V"
    report = reports.having("alphas", wanted=wanted, command=command).report
    points = [(point.alpha, point.scores) for point in report.alphas]
    caption = (
        f"{len(report.alphas)} mixtures: at 0 the base, at 1 the mean of the checkpoints, each scored on "
        f"{', '.join(report.sets)}. Lines through marks are one standard error to each side; the filled mark is "
        "the one that was taken."
    )
    panels = [along("alpha", points, report.alpha, name, reports.metric(name)) for name in report.sets]
    return figure_along("alpha", "From the base to the mean", caption, panels)


def figure_along(kind: str, title: str, caption: str, panels: Sequence[Panel]) -> Figure:
    """A figure of scores along a way through weights, one panel for each set."""
    return Figure(
        kind=kind,
        title=title,
        caption=printable(caption),
        panels=tuple(panels),
        legend=(("kept", "taken"), ("left-out", "not taken")),
        columns=1 if len(panels) == 1 else 2,
    )


def along(what: str, points: Sequence[tuple[float, Scores]], taken: float | None, name: str, metric: str) -> Panel:
    """The scores on one set of points along a way; `what` names the number that says where each lies."""
    marks: list[Mark] = []
    by = factor(metric)
    for place, scores in points:
        score = score_of(scores, name, metric)
        if score is not None and score.value is not None:
            error = None if score.stderr is None else score.stderr * by
            words = f"{what} {place:g}: {shown(metric, score.value, score.stderr)}"
            role: Role = "kept" if place == taken else "left-out"
            marks.append(Mark(role, place, score.value * by, words, None, error))
    return Panel(
        title="",
        x=scaled(what, [mark.x for mark in marks]),
        y=scaled(titled(name, metric), [m.y + side * (m.y_error or 0.0) for m in marks for side in (-1, 1)]),
        marks=tuple(marks),
        lines=(Line((tuple((mark.x, mark.y) for mark in marks),), "solid"),) if marks else (),
    )
