"""The selecting score against every other set, one dot for each ingredient, soups marked (the paper's Figure 1)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

from soupcli.errors import UsageError
from soupcli.figures.figure import Figure, Mark, Panel, Role, fences, named, printable, scaled
from soupcli.figures.reports import MarkedScores, Reports, factor, score_of, titled
from soupcli.report.scores import MetricScore, Scores
from soupcli.report.tables import other_side, selected_on
from soupcli.wording import SHARES, shown, signed

MANY = 40  # dots, past which their standard errors are said and not drawn
Read = Callable[[Scores], tuple[float, float | None, str] | None]  # value, standard error, in words


def figure(reports: Reports) -> Figure:
    """A panel for each set but the selecting one, and one for their mean if all have one metric of shares.

    Raises UsageError if there is only one set, or if ingredients have no score on the others.
    """
    selecting, others = _sets(reports)
    metric = reports.metric(selecting)
    _require(reports, others)
    across = _reader(selecting, metric)
    rows = [MarkedScores("ingredient", ingredient.path, ingredient.scores) for ingredient in reports.ingredients]
    rows += sorted(reports.marked, key=lambda scored: scored.role == "best", reverse=True)
    reads = {titled(name, reports.metric(name)): _reader(name, reports.metric(name)) for name in others}
    metrics = {reports.metric(name) for name in others}
    if len(others) > 1 and len(metrics) == 1 and metrics <= SHARES:
        shared = next(iter(metrics))
        mean = f"mean {shared} of {len(others)} sets (%)"
        reads = {mean: _mean_reader(others, shared)} | reads
    panels = [_panel(title, rows, across, read, titled(selecting, metric)) for title, read in reads.items()]
    return Figure(
        kind="scores",
        title="Ingredients and soups on every set",
        caption=_caption(reports, selecting, others, rows, across),
        panels=tuple(panels),
        legend=_legend(reports),
        columns=1 if len(panels) == 1 else 2,
    )


def _sets(reports: Reports) -> tuple[str, list[str]]:
    if len(reports.sets) < 2:
        have = f"one set alone, {reports.sets[0]}" if reports.sets else "no set"
        raise UsageError(
            f"{reports.name}: has {have}: there is nothing to hold the selecting score against",
            hint=f"{reports.ranking_command([*reports.sets, 'ANOTHER'])}",
        )
    return reports.sets[0], list(reports.sets[1:])


def _require(reports: Reports, others: list[str]) -> None:
    """Raises UsageError if an ingredient has no score on a set."""
    for name in others:
        without = [ingredient.path for ingredient in reports.ingredients if not ingredient.scores.get(name)]
        if without:
            raise UsageError(
                f"{reports.name}: {len(without)} of {len(reports.ingredients)} ingredients have no score on {name}, "
                f"e.g. {without[0]}",
                hint=f"{reports.ranking_command(reports.sets)}, then name rank.json as well; "
                "what was evaluated before is not evaluated again",
            )


def _reader(name: str, metric: str) -> Read:
    def read(scores: Scores) -> tuple[float, float | None, str] | None:
        score = score_of(scores, name, metric)
        if score is None or score.value is None:
            return None
        by = factor(metric)
        return score.value * by, None if score.stderr is None else score.stderr * by, _words(name, metric, score)

    return read


def _mean_reader(names: list[str], metric: str) -> Read:
    """The plain mean over sets; without a standard error, as sets may share examples."""

    def read(scores: Scores) -> tuple[float, float | None, str] | None:
        found = [score_of(scores, name, metric) for name in names]
        values = [score.value for score in found if score is not None and score.value is not None]
        if len(values) < len(names):
            return None
        mean = statistics.fmean(values)
        return mean * factor(metric), None, f"mean of {len(names)} sets {shown(metric, mean, None)}"

    return read


def _words(name: str, metric: str, score: MetricScore) -> str:
    return f"{name} {shown(metric, score.value, score.stderr)}"


def _panel(title: str, rows: Iterable[MarkedScores], across: Read, up: Read, x_title: str) -> Panel:
    points = [(row, across(row.scores), up(row.scores)) for row in rows]
    known = [(row, x, y) for row, x, y in points if x is not None and y is not None]
    many = sum(row.role == "ingredient" for row, _, _ in known) > MANY
    ends = [fences(of[0] for of in values) for values in ([x for _, x, _ in known], [y for _, _, y in known])]
    marks = []
    for row, x, y in known:
        name = printable(f"{row.label}: {x[2]}, {y[2]}")
        if row.role != "ingredient":
            marks.append(Mark(row.role, x[0], y[0], name, x[1], y[1]))
            continue
        across_at, up_at = (min(max(of[0], low), high) for of, (low, high) in zip((x, y), ends, strict=True))
        bare = many or (across_at, up_at) != (x[0], y[0])
        marks.append(Mark(row.role, across_at, up_at, name, None if bare else x[1], None if bare else y[1]))
    return Panel(
        title="",
        x=scaled(x_title, _reach((mark.x, mark.x_error, mark.role) for mark in marks)),
        y=scaled(title, _reach((mark.y, mark.y_error, mark.role) for mark in marks)),
        marks=tuple(marks),
    )


def _reach(marks: Iterable[tuple[float, float | None, Role]]) -> list[float]:
    """The range of an axis: all values, and the standard errors of marked ones."""
    errors = [(value, 0.0 if role == "ingredient" else error or 0.0) for value, error, role in marks]
    return [value + side * error for value, error in errors for side in (-1, 1)]


def _legend(reports: Reports) -> tuple[tuple[Role, str], ...]:
    dots: list[tuple[Role, str]] = [("ingredient", f"{len(reports.ingredients)} ingredients")]
    return tuple(dots + [(scored.role, named(scored.label, 56)) for scored in reports.marked])


def _caption(reports: Reports, selecting: str, others: list[str], rows: list[MarkedScores], across: Read) -> str:
    text = (
        f"Each dot is one of {len(reports.ingredients)} ingredients: across, its score on {selecting}, which selects; "
        f"up, its score on {', '.join(others)}. Lines through marks are one standard error to each side."
    )
    errors = [read[1] for row in rows if row.role == "ingredient" and (read := across(row.scores)) and read[1]]
    low, high = fences(read[0] for row in rows if (read := across(row.scores)))
    beyond = sum(
        not low <= read[0] <= high for row in rows if row.role == "ingredient" and (read := across(row.scores))
    )
    text += f" {beyond} ingredients lie far below or above and are drawn at the ends of the axes." if beyond else ""
    if len(reports.ingredients) > MANY and errors:
        unit = " points" if reports.metric(selecting) in SHARES else ""
        text += f" Those of the ingredients are left out: on {selecting} about {statistics.median(errors):.2g}{unit}."
    return printable(text + _compared(reports, [selecting, *others]))


def _compared(reports: Reports, sets: list[str]) -> str:
    """The soup of the first report against the best ingredient, on each set: ` val: soup less best +0.50 (...).`."""
    report = reports.first
    held = {of.set: of for of in report.comparisons if of.metric == reports.metric(of.set)}
    said = []
    for of in (held[name] for name in sets if name in held):
        ends = f" ({signed(of.metric, of.low)} to {signed(of.metric, of.high)})" if of.low is not None else ""
        difference = f"{signed(of.metric, of.difference)}{ends}"
        chose = selected_on(of) if of.set in report.selecting_sets else ""
        said.append(f"{of.set}{chose}: soup less {other_side(of)} {difference}")
    return f" With 95% intervals, {'; '.join(said)}." if said else ""
