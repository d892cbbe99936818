"""The tables of a page: a function yields nothing if the reports have nothing for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from soupcli.figures.page import html
from soupcli.figures.reports import MarkedScores, Reports, short_paths
from soupcli.report.tables import (
    Column,
    Table,
    by_trainer,
    correlation_table,
    decision,
    expert_lines,
    other_side,
    plane_table,
    reached,
    score_cell,
    selected_on,
    step_metric,
    tried,
)
from soupcli.wording import human_bytes, shown, signed

if TYPE_CHECKING:
    from soupcli.report.comparisons import Comparison
    from soupcli.report.report import Report
    from soupcli.report.scores import Ingredient, Scores
    from soupcli.report.soups import SearchStep


def _columns(rows: Iterable[Scores], sets: Sequence[str]) -> list[tuple[str, str]]:
    """(set, metric) of everything that one of the rows has been scored by, in the order of the sets."""
    known = [scores for scores in rows if scores]
    return [
        (name, metric)
        for name in sets
        for metric in dict.fromkeys(metric for scores in known for metric in scores.get(name, {}))
    ]


def _headings(columns: Sequence[tuple[str, str]], reports: Reports) -> list[Column]:
    return [
        Column(name if metric == reports.metric(name) else f"{name} {metric}", is_number=True)
        for name, metric in columns
    ]


def scores(reports: Reports) -> Iterable[str]:
    """Best ingredient and soups on every set."""
    second = reports.first.second_best
    rows = [scored for scored in reports.marked if scored.scores]
    if second is not None:
        rows.insert(1, MarkedScores("ingredient", f"second-best ingredient ({second.path})", second.scores))
    columns = _columns((scored.scores for scored in rows), reports.sets)
    if rows and columns:
        cells = [[scored.label, *(score_cell(scored.scores, *column) for column in columns)] for scored in rows]
        caption = f"Value ± standard error; {reports.sets[0]} selects"
        yield html.table(caption, [Column("weights"), *_headings(columns, reports)], cells)


def shared(report: Report) -> Iterable[str]:
    """Sets that hold examples of the selecting one."""
    for name, count in report.shared_examples.items():
        yield html.paragraph(f"{count:,} examples of {name} are in {report.selecting_set} too, which selects.", "faint")


def comparisons(reports: Reports) -> Iterable[str]:
    """A table for each soup that was compared with the best ingredient."""
    for source in reports.sources:
        of_soup: dict[str, list[Comparison]] = {}
        for comparison in source.report.comparisons:
            of_soup.setdefault(comparison.soup, []).append(comparison)
        for soup, comparisons in of_soup.items():
            caption = f"{soup} less {comparisons[0].best}, over the same examples"
            yield html.table_of(_compared(caption, comparisons, source.report))
            if any(of.cross_fitted for of in comparisons):
                yield html.paragraph(CROSS_FITTED, "faint")


CROSS_FITTED = (
    "Cross-fitted: the soup was not selected on this set, so the best ingredient is not either. For each tenth of the "
    "examples it is the one that is best on all others."
)


def _compared(caption: str, comparisons: Iterable[Comparison], report: Report) -> Table:
    columns = [Column("set"), Column("metric"), Column("compared with")]
    columns += [Column(heading, is_number=True) for heading in ("difference", "95% interval", "p", "examples")]
    columns += [Column("reads as")]
    rows = [
        [
            f"{of.set}{selected_on(of) if of.set in report.selecting_sets else ''}",
            of.metric,
            other_side(of),
            signed(of.metric, of.difference),
            _interval(of),
            "" if of.p is None else "< 0.001" if of.p < 0.001 else f"{of.p:.2g}",
            "" if of.n is None else f"{of.n:,}",
            of.verdict,
        ]
        for of in comparisons
    ]
    return Table(caption, columns, rows)


def _interval(of: Comparison) -> str:
    return "" if of.low is None or of.high is None else f"{signed(of.metric, of.low)} to {signed(of.metric, of.high)}"


def gates(reports: Reports) -> Iterable[str]:
    """The gates of the recipe and their outcomes."""
    gates = [gate for source in reports.sources for gate in source.report.gates]
    answers = {True: "met", False: "not met", None: "not compared"}
    columns = [Column("soup"), Column("set"), Column("metric"), Column("gate")]
    columns += [Column("value", is_number=True), Column("needed", is_number=True), Column("answer"), Column("why")]
    rows = [
        [
            *(gate.soup, gate.set, gate.metric, gate.gate),
            shown(gate.metric, gate.value, None),
            shown(gate.metric, gate.needed, None),
            answers[gate.met],
            gate.reason,
        ]
        for gate in gates
    ]
    if rows:
        yield html.table("The gates of the recipe", columns, rows)


def alphas(report: Report) -> Iterable[str]:
    """Every point between the base and the mean."""
    columns = _columns((point.scores for point in report.alphas), report.sets)
    if columns:
        headings = [Column("alpha"), *(Column(f"{name} {metric}", is_number=True) for name, metric in columns)]
        rows = [
            [
                f"{point.alpha:g}{' (taken)' if point.alpha == report.alpha else ''}",
                *(score_cell(point.scores, *column) for column in columns),
            ]
            for point in report.alphas
        ]
        yield html.table("At 0 the base, at 1 the mean of the checkpoints", headings, rows)


def experts(report: Report) -> Iterable[str]:
    """Which sets go together, and the expert of each group."""
    if report.experts is not None:
        yield html.table_of(correlation_table(report.experts))
        yield from map(html.paragraph, expert_lines(report.experts))


def scale(report: Report) -> Iterable[str]:
    """Every point of the way through the soup that was tried."""
    if (found := report.scale) is None:
        return
    columns = _columns((point.scores for point in found.points), report.sets)
    headings = [Column("scale"), *(Column(f"{name} {metric}", is_number=True) for name, metric in columns)]
    rows = [
        [
            f"{point.scale:g}{' (taken)' if point.scale == found.scale else ''}",
            *(score_cell(point.scores, *column) for column in columns),
        ]
        for point in found.points
    ]
    yield html.table(f"At 0 the base, {found.base.path}, at 1 the soup", headings, rows)


def plane(report: Report) -> Iterable[str]:
    """The corners of a landscape and their mean."""
    if report.landscape is not None:
        yield html.table_of(plane_table(report))


def pairs(report: Report) -> Iterable[str]:
    """Angle and gain of every pair."""
    if report.pairs is None:
        return
    columns = [Column("pair"), Column("angle", is_number=True), Column("set"), Column("metric")]
    columns += [Column("gain", is_number=True), Column("95% interval", is_number=True), Column("reads as")]
    in_order = sorted(report.pairs.pairs, key=lambda pair: (pair.angle is None, pair.angle or 0.0))
    rows = [
        [
            " + ".join(pair.members),
            "" if pair.angle is None else f"{pair.angle:.1f}°",
            *(of.set, of.metric, signed(of.metric, of.difference), _interval(of), of.verdict),
        ]
        for pair in in_order
        for of in pair.gains
    ]
    yield html.table(f"Seen from {report.pairs.start}; the mean less the better of the two", columns, rows)


def members(report: Report) -> Iterable[str]:
    """The members of the soup, and its path."""
    soup = report.soup
    if soup is None:
        return
    names = short_paths(report)
    rows = [[names.get(path, path), f"{weight:.4f}"] for path, weight in zip(soup.members, soup.weights, strict=True)]
    caption = "In the order of acceptance"
    if soup.coefficients is not None:
        caption = "Weights are means over all elements: the layers have their own"
    yield html.table(caption, [Column("member"), Column("weight", is_number=True)], rows)
    facts = {
        "written to": soup.path,
        "hash": soup.hash,
        "size": human_bytes(soup.bytes) if soup.bytes else "",
        "dtypes": ", ".join(f"{dtype} ({count} tensors)" for dtype, count in soup.dtypes.items()),
        "files": ", ".join(soup.files),
        "kept from": soup.kept_from or "",
        "not averaged, and different": ", ".join(soup.differing),
        "not mixed": ", ".join(soup.not_mixed),
        "adapter": f"rank {soup.adapter.rank}, {soup.adapter.relative_error:.2%} off the mean" if soup.adapter else "",
    }
    yield html.pairs((name, value) for name, value in facts.items() if value)
    if (layers := soup.coefficients) is not None:
        columns = [Column("layer"), *(Column(names.get(one, one), is_number=True) for one in layers.members)]
        cells = [
            [layer, *(f"{value:.4f}" for value in row)] for layer, row in zip(layers.layers, layers.alpha, strict=True)
        ]
        yield html.folded("Coefficients in numbers", html.table("Each row sums to 1", columns, cells))


def steps(report: Report) -> Iterable[str]:
    """Every decision of a search."""
    if not report.steps:
        return
    metric = step_metric(report)
    columns = [Column("tried"), *(Column(name, is_number=True) for name in ("score", "needed"))]
    columns += [Column("decision"), Column("examples", is_number=True), Column("seconds", is_number=True)]
    yield html.table("Every decision, in order", columns, _step_rows(report, metric))
    if (search := report.search) is not None:
        yield html.paragraph(f"Strategy {search.strategy}: {search.evaluations} soups were asked for.", "faint")
        rows = [
            [str(number), " ".join(of.order), " ".join(of.members), shown(metric, of.score, None), str(of.evaluations)]
            for number, of in enumerate(search.orders, 1)
        ]
        headings = [Column("order"), Column("ingredients in it"), Column("members")]
        headings += [Column("score", is_number=True), Column("soups", is_number=True)]
        yield (
            html.folded("Orders that were tried", html.table("The best one was taken", headings, rows)) if rows else ""
        )


def _step_rows(report: Report, metric: str) -> list[list[str]]:
    names = short_paths(report)
    short = {step.candidate: names.get(step.candidate, step.candidate) for step in report.steps}
    return [
        [tried(step).replace(step.candidate, short[step.candidate]), *_step_cells(step, metric)]
        for step in report.steps
    ]


def _step_cells(step: SearchStep, metric: str) -> list[str]:
    needed = "" if step.threshold is None else shown(metric, step.threshold, None)
    return [reached(step, metric), needed, decision(step), f"{step.examples:,}", f"{step.seconds:.2f}"]


def ingredients(reports: Reports) -> Iterable[str]:
    """The score of every ingredient."""
    rows = reports.ingredients
    columns = _columns((ingredient.scores for ingredient in rows), reports.sets)
    headings = [Column("ingredient"), *_headings(columns, reports), Column("size", is_number=True)]
    headings += [Column("format"), Column("by its trainer"), Column("hash"), Column("path")]
    names = short_paths(reports.first)
    cells = [
        [
            names.get(ingredient.path, ingredient.path),
            *(score_cell(ingredient.scores, *column) for column in columns),
            human_bytes(ingredient.bytes),
            _saved_as(ingredient),
            by_trainer(ingredient.trainer_metrics),
            ingredient.hash.removeprefix("sha256:")[:12],
            ingredient.path if names.get(ingredient.path, ingredient.path) != ingredient.path else "",
        ]
        for ingredient in rows
    ]
    if cells:
        caption = "Best first if there was a ranking; the first 12 digits of each hash"
        yield html.table_of(Table(caption, headings, cells).without_empty())


def _saved_as(ingredient: Ingredient) -> str:
    """Return format and key of an ingredient, or "" for plain safetensors."""
    key = f" ({ingredient.key})" if ingredient.key else ""
    return "" if (ingredient.format, key) == ("safetensors", "") else ingredient.format + key
