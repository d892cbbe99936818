"""A report as one HTML page: what was asked, what came out, how sure it is, and everything that it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import yaml

from soupcli.figures import html
from soupcli.figures.html import Column
from soupcli.figures.kinds import possible
from soupcli.figures.reports import Reports
from soupcli.report import Comparison, Ingredient, MetricScore, Report, Scores, Step
from soupcli.wording import SHARES, human_bytes, shown

TITLES = {"rank": "Ranking", "eval": "Evaluation", "landscape": "Landscape", "pairs": "Pairs", "inspect": "Inspection"}
SELECTING = ("greedy", "learned")  # commands whose soup depends on the first set
# What this page says elsewhere; other parts of a report stand at its end as they are.
SAID = {"schema", "command", "created", "versions", "device", "recipe", "ingredients", "steps", "soup", "best"}
SAID |= {"uniform", "selecting_set", "sets", "comparisons", "warnings", "cost", "landscape", "pairs", "learned"}


def page(reports: Reports) -> str:
    """The whole page, from the reports alone."""
    report = reports.first
    title = _title(report)
    figures, missing = possible(reports)
    hints = [html.paragraph(f"Not drawn: {error}. {error.hint}", "faint") for error in missing]
    body = [
        f"<header><h1>{html.text(title)}</h1>",
        html.paragraph(f"soup {report.command}, {report.created}, on {report.device}", "faint"),
        *(html.paragraph(f"Warning: {warning}", "warning") for warning in report.warnings),
        "</header>",
        html.section("Scores", *_scores(reports)),
        html.section("Soup against best ingredient", *_comparisons(reports)),
        html.section("Figures", *map(html.figure, figures), *hints),
        html.section("Members", *_members(report)),
        html.section("Steps", *_steps(report)),
        html.section("Ingredients", *_ingredients(reports)),
        html.section("Cost", *_cost(report)),
        html.section("How it was made", *_made(report)),
        html.section("More", *_more(report)),
    ]
    return html.document(title, "\n".join(part for part in body if part))


def _title(report: Report) -> str:
    if report.soup is not None:
        counts = f"{len(report.soup.members)} of {len(report.ingredients)} ingredients"
        return f"{report.command.capitalize()} soup: {counts}"
    return f"{TITLES.get(report.command, report.command.capitalize())} of {len(report.ingredients)} checkpoints"


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


def _cell(scores: Scores, name: str, metric: str) -> str:
    score: MetricScore | None = scores.get(name, {}).get(metric)
    return "" if score is None else shown(metric, score.value, score.stderr)


def _scores(reports: Reports) -> Iterable[str]:
    rows = [scored for scored in reports.marked if scored.scores]
    columns = _columns((scored.scores for scored in rows), reports.sets)
    if rows and columns:
        cells = [[scored.label, *(_cell(scored.scores, *column) for column in columns)] for scored in rows]
        caption = f"Value ± standard error; {reports.sets[0]} selects"
        yield html.table(caption, [Column("weights"), *_headings(columns, reports)], cells)


def _comparisons(reports: Reports) -> Iterable[str]:
    """A table for each soup that was held against the best ingredient."""
    for source in reports.sources:
        of_soup: dict[str, list[Comparison]] = {}
        for comparison in source.report.comparisons:
            of_soup.setdefault(comparison.soup, []).append(comparison)
        for soup, comparisons in of_soup.items():
            selected = source.report.selecting_set if source.report.command in SELECTING else None
            yield _compared(f"{soup} less {comparisons[0].best}, over the same examples", comparisons, selected)


def _compared(caption: str, comparisons: Iterable[Comparison], selected: str | None) -> str:
    columns = [Column("set"), Column("metric")]
    columns += [Column(heading, is_number=True) for heading in ("difference", "95% interval", "p", "examples")]
    columns += [Column("reads as")]
    rows = [
        [
            f"{of.set} (selected on it)" if of.set == selected else of.set,
            of.metric,
            _signed(of.metric, of.difference),
            ""
            if of.low is None or of.high is None
            else f"{_signed(of.metric, of.low)} to {_signed(of.metric, of.high)}",
            "" if of.p is None else "< 0.001" if of.p < 0.001 else f"{of.p:.2g}",
            "" if of.n is None else f"{of.n:,}",
            _verdict(of),
        ]
        for of in comparisons
    ]
    return html.table(caption, columns, rows)


def _signed(metric: str, value: float | None) -> str:
    if value is None:
        return "NaN"
    return f"{value * 100:+.2f}" if metric in SHARES else f"{value:+.4f}"


def _verdict(of: Comparison) -> str:
    """What the interval says."""
    if of.low is None or of.high is None:
        return "no interval"
    if of.low <= 0 <= of.high:
        return "too close to tell"
    return "better" if (of.low > 0) == of.higher_is_better else "worse"


def _members(report: Report) -> Iterable[str]:
    soup = report.soup
    if soup is None:
        return
    rows = [[path, f"{weight:.4f}"] for path, weight in zip(soup.members, soup.weights, strict=True)]
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
        columns = [Column("layer"), *(Column(member, is_number=True) for member in layers.members)]
        cells = [
            [layer, *(f"{value:.4f}" for value in row)] for layer, row in zip(layers.layers, layers.alpha, strict=True)
        ]
        yield html.folded("Coefficients in numbers", html.table("Each row sums to 1", columns, cells))


def _steps(report: Report) -> Iterable[str]:
    if not report.steps:
        return
    metric = _step_metric(report)
    columns = [Column("candidate"), *(Column(name, is_number=True) for name in ("score with it", "needed"))]
    columns += [Column("decision"), Column("examples", is_number=True), Column("seconds", is_number=True)]
    yield html.table("Every decision, in order", columns, [_step_row(step, metric) for step in report.steps])


def _step_metric(report: Report) -> str:
    scores = report.soup.scores.get(report.selecting_set or "", {}) if report.soup is not None else {}
    wanted = report.recipe.get("metric", "")
    return wanted if wanted in scores else next(iter(scores), wanted)


def _step_row(step: Step, metric: str) -> list[str]:
    needed = "" if step.threshold is None else shown(metric, step.threshold, None)
    decision = f"{'kept' if step.accepted else 'left out'} ({step.reason})"
    score = shown(metric, step.score, None)
    return [step.candidate, score, needed, decision, f"{step.examples:,}", f"{step.seconds:.2f}"]


def _ingredients(reports: Reports) -> Iterable[str]:
    rows = reports.ingredients
    columns = _columns((ingredient.scores for ingredient in rows), reports.sets)
    headings = [Column("ingredient"), *_headings(columns, reports), Column("size", is_number=True)]
    headings += [Column("format"), Column("by its trainer"), Column("hash")]
    cells = [
        [
            ingredient.path,
            *(_cell(ingredient.scores, *column) for column in columns),
            human_bytes(ingredient.bytes),
            _saved_as(ingredient),
            ", ".join(f"{name} {value:.4g}" for name, value in ingredient.trainer_metrics.items() if value is not None),
            ingredient.hash.removeprefix("sha256:")[:12],
        ]
        for ingredient in rows
    ]
    kept = [number for number in range(len(headings)) if number < 2 or any(row[number] for row in cells)]
    if cells:
        yield html.table(
            "Best first where there was a ranking; of each hash the first 12 digits",
            [headings[number] for number in kept],
            [[row[number] for number in kept] for row in cells],
        )


def _saved_as(ingredient: Ingredient) -> str:
    """Nothing of bare safetensors."""
    key = f" ({ingredient.key})" if ingredient.key else ""
    return "" if (ingredient.format, key) == ("safetensors", "") else ingredient.format + key


def _cost(report: Report) -> Iterable[str]:
    cost = report.cost
    facts = {"examples evaluated": f"{cost.examples:,}"}
    facts |= {f"seconds, {phase}": f"{seconds:.1f}" for phase, seconds in cost.seconds.items()}
    facts |= {f"most memory, {place}": human_bytes(count) for place, count in cost.peak_bytes.items()}
    yield html.pairs(facts.items())


def _made(report: Report) -> Iterable[str]:
    yield html.pairs(report.versions.items())
    if report.learned is not None:
        fit = report.learned
        yield html.pairs(
            [
                ("fitted on", f"{fit.fitted_examples:,} examples, {fit.held_out_examples:,} held out"),
                ("step kept", f"{fit.kept_step} of {fit.steps[-1]}, held-out loss {min(fit.held_out):.4f}"),
                ("temperature", f"{fit.beta:.4f}"),
            ]
        )
        yield from (html.paragraph(f"Warning: {warning}", "warning") for warning in fit.warnings)
    yield html.paragraph("The recipe, resolved:")
    yield html.lines(_yaml(report.recipe))


def _more(report: Report) -> Iterable[str]:
    """Parts of the report that this page has no place of its own for."""
    document: Mapping[str, object] = report.model_dump(mode="json", by_alias=True)
    for name, part in document.items():
        if name not in SAID and part:
            yield html.paragraph(f"{name}:")
            yield html.lines(_yaml(part))


def _yaml(value: object) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)).rstrip()
