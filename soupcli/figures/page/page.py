"""A report as one HTML page: the command, the result, how sure it is, and everything that it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import yaml

from soupcli.figures.draw.svg import text
from soupcli.figures.page import html, sections
from soupcli.figures.page import inspection as inspected
from soupcli.figures.registry import possible
from soupcli.wording import human_bytes

if TYPE_CHECKING:
    from soupcli.figures.reports import Reports
    from soupcli.report.report import Report

# What this page says elsewhere; other parts of a report come unchanged at its end.
SAID = {
    "schema",
    "command",
    "created",
    "versions",
    "device",
    "recipe",
    "ingredients",
    "steps",
    "search",
    "experts",
    "soup",
    "best",
}
SAID |= {
    "second_best",
    "uniform",
    "ensemble",
    "greedy_ensemble",
    "learned",
    "alphas",
    "alpha",
    "scale",
    "coefficient_search",
    "landscape",
    "pairs",
}
SAID |= {
    "selecting_set",
    "selecting_metrics",
    "lower_is_better",
    "sets",
    "shared_examples",
    "comparisons",
    "gates",
    "inspection",
    "warnings",
    "cost",
}


def page(reports: Reports) -> str:
    """Return the whole page, made only from the reports."""
    report = reports.first
    title = _title(report)
    figures, missing = possible(reports)
    hints = [html.paragraph(f"Not drawn: {error}. {error.hint}", "faint") for error in missing]
    body = [
        f"<header><h1>{text(title)}</h1>",
        html.paragraph(f"soup {report.command}, {report.created}, on {report.device}", "faint"),
        *(html.paragraph(f"Warning: {warning}", "warning") for warning in report.warnings),
        "</header>",
    ]
    parts = [
        html.section("Verdict", *inspected.verdicts(report)),
        html.section("Scores", *sections.scores(reports), *sections.shared(report)),
        html.section("Soup against best ingredient", *sections.comparisons(reports)),
        html.section("Gates", *sections.gates(reports)),
        html.section("Figures", *map(html.figure, figures), *hints),
        html.section("Experts", *sections.experts(report)),
        html.section("From the base to the mean", *sections.alphas(report)),
        html.section("From the base through the soup", *sections.scale(report)),
        html.section("Checkpoints", *inspected.checkpoints(report)),
        html.section("Barriers", *inspected.barriers(report)),
        html.section("Plane", *sections.plane(report)),
        html.section("Pairs", *sections.pairs(report)),
        html.section("Members", *sections.members(report)),
        html.section("Steps", *sections.steps(report)),
        html.section("Ingredients", *sections.ingredients(reports)),
        html.section("Cost", *_cost(report)),
        html.section("How it was made", *_made(report)),
        html.section("More", *_more(report)),
    ]
    found = [part for part in (*body, html.contents(parts), *parts) if part]
    return html.document(title, "\n".join(found))


def _title(report: Report) -> str:
    if report.soup is not None:
        counts = f"{len(report.parts_of_soup)} of {len(report.ingredients)} ingredients"
        return f"{report.command.capitalize()} soup: {counts}"
    if report.landscape is not None:
        return "The plane through three checkpoints"
    what = "Pairs" if report.pairs is not None else "Inspection" if report.inspection is not None else "Ranking"
    return f"{what} of {len(report.ingredients)} checkpoints"


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
        held_out = fit.held_out[fit.steps.index(fit.kept_step)]
        yield html.pairs(
            [
                ("fitted on", f"{fit.fitted_examples:,} examples, {fit.held_out_examples:,} held out"),
                (
                    "step kept",
                    f"{fit.kept_step} of {fit.steps[-1]}, held-out loss {held_out:.4f}",
                ),
                ("temperature", f"{fit.beta:.4f}"),
            ]
        )
        yield from (html.paragraph(f"Warning: {warning}", "warning") for warning in fit.warnings)
    if (found := report.coefficient_search) is not None:
        facts = {"searched by": f"{found.algorithm} ({found.package}), seed {found.seed}"}
        facts |= {"mixtures": f"{found.evaluations} of {found.budget}, {found.population} in a generation"}
        ends = (("start", found.start), ("found", found.best))
        facts |= {name: f"{value:.4f}" for name, value in ends if value is not None}
        yield html.pairs(facts.items())
    yield html.paragraph("The recipe, resolved:")
    yield html.lines(_yaml(report.recipe))


def _more(report: Report) -> Iterable[str]:
    """Return the parts of the report that have no section of their own."""
    document: Mapping[str, object] = report.model_dump(by_alias=True)
    for name, part in document.items():
        if name not in SAID and part:
            yield html.paragraph(f"{name}:")
            yield html.lines(_yaml(part))


def _yaml(value: object) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)).rstrip()
