"""A report as text for a terminal: tables and sentences made from nothing but the report."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from soupcli.output.inspection import Part, inspection_text
from soupcli.output.sentences import cost_of, describe_result, sentences
from soupcli.report.tables import (
    Column,
    ScoredRow,
    Table,
    by_trainer,
    coefficient_table,
    correlation_table,
    expert_lines,
    metric_of,
    numbers,
    plane_table,
    score_cell,
    score_table,
    step_metric,
    step_table,
    stock_table,
)
from soupcli.wording import signed, words_for

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.report.report import Report
    from soupcli.report.soups import Soup
    from soupcli.report.surveys import Pair

MOST_STEPS = 24  # that are shown each
MOST_MEMBERS = 12  # that are named below the table


def report_text(report: Report, file: Path | None = None) -> Iterator[Part]:
    """Yield the parts that a command shows, each a table or sentences. `file` is where the report was written."""
    if report.inspection is not None:
        yield from inspection_text(report, report.inspection)
    elif report.landscape is not None:
        yield plane_table(report)
        yield [f"{len(report.landscape.grid)} points of the plane: {file}"]
    elif report.pairs is not None:
        yield _pair_table(report)
        drawn = f", drawn from {report.pairs.possible} by seed {report.pairs.seed}"
        every = len(report.pairs.pairs) == report.pairs.possible
        yield [f"{len(report.pairs.pairs)} pairs{'' if every else drawn}: {file}"]
    elif report.soup is not None:
        yield from _soup_text(report, report.soup)
    else:
        yield from _ranking_text(report)


def _soup_text(report: Report, soup: Soup) -> Iterator[Part]:
    if report.sets:
        yield score_table(report, "weights", _soup_rows(report, soup))
    if report.stock is not None:
        yield stock_table(report.stock)
    if report.experts is not None:
        yield correlation_table(report.experts)
        yield expert_lines(report.experts)
    if report.steps:
        yield from _step_text(report)
    if report.is_learned and soup.coefficients is not None:
        yield coefficient_table(soup.coefficients)
    alone = report.best is not None and report.parts_of_soup == [report.best.path] and report.comparisons
    compared = (
        [f"the soup is the {report.name_of_best} alone{_of_tried(report)}"]
        if alone
        else sentences(report, report.comparisons)
    )
    compared = [*compared, *_other_statistics(report, soup)]
    if said := [*_objective_text(report), *_search_text(report), *compared, *map(describe_result, report.gates)]:
        yield said
    if report.flops is not None:
        yield [cost_of(report.flops)]
    if report.sets and report.best is None and (command := _comparing_command(report, soup)):
        yield [f"not compared with its ingredients, which were not scored: {command} does"]
    yield [f"members: {_members(soup)}", *_summary(report, soup)]


def _comparing_command(report: Report, soup: Soup) -> str:
    """Return the command that compares a soup with its ingredients."""
    ingredients = [one.path for one in report.ingredients]
    words = words_for(ingredients) if len(ingredients) > MOST_MEMBERS else shlex.join(ingredients)
    own = shlex.quote(soup.path.rpartition("/")[0] or soup.path)
    return f"soup eval --ckpts {own} {words} --val {shlex.join(report.sets)}"


def _summary(report: Report, soup: Soup) -> list[str]:
    """Return how many checkpoints were kept, where the soup is, and how long the search or fit took."""
    if report.selected_on is None:
        return [f"soup: {soup.path}"]
    kept = f"{len(soup.members)} of {len(report.ingredients)} checkpoints"
    took = f"{sum(report.cost.seconds.values()):.1f} s, {report.cost.examples:,} examples evaluated"
    written = f"soup: {soup.path} ({kept}, {took})"
    if report.learned is None:
        return [written]
    fit = report.learned
    losses = dict(zip(fit.steps, fit.held_out, strict=True))
    chosen = f"step {fit.kept_step} of {fit.steps[-1]} was kept" if fit.kept_step else "the start was kept"
    if fit.kept_step in losses:
        chosen += f": held-out loss {losses[fit.kept_step]:.4f}, {fit.held_out[0]:.4f} at the start"
    return [chosen, written]


def _step_text(report: Report) -> Iterator[Part]:
    """Yield each decision of a search. Of many, accepted ones are shown, and the reasons of the rest are counted."""
    steps = report.steps
    shown_steps = steps if len(steps) <= MOST_STEPS else [step for step in steps if step.accepted]
    yield step_table(report, shown_steps)
    left_out = [step for step in steps if not step.accepted]
    if len(shown_steps) < len(steps):
        reasons = Counter(re.sub(r" after .*", "", step.reason) for step in left_out)
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        yield [f"and {len(left_out)} that were not taken ({counted}): soup.json has each"]


def _of_tried(report: Report) -> str:
    """Return e.g. `, the best of 12 tried on val`: a score that selected is too high."""
    tried = max((of.tried for of in report.comparisons if of.tried is not None), default=None)
    return "" if tried is None else f", the best of {tried} tried on {' and '.join(report.selecting_sets)}"


def _objective_text(report: Report) -> Iterator[str]:
    """Yield the objective that chose the soup, if several sets did."""
    judged = report.objective
    if judged is None:
        return
    which = (
        ", ".join(judged.weights)
        if judged.kind == "worst"
        else ", ".join(f"{weight:.3g} {name}" for name, weight in judged.weights.items())
    )
    best = judged.ingredients.get(report.best.path) if report.best is not None else None
    values = [("soup", judged.soup), (report.name_of_best, best)]
    shown = ", ".join(f"{name} {value:+.4f}" for name, value in values if value is not None)
    yield f"objective, the {judged.kind} gain over {which}: {shown}"


def _search_text(report: Report) -> Iterator[str]:
    """Yield how many mixtures a search for coefficients evaluated, and what it gained over its start."""
    found = report.coefficient_search
    if found is None or found.start is None or found.best is None:
        return
    early = ", which ended early: all of the last ones are alike" if found.ended_early else ""
    yield (
        f"searched by {found.algorithm}: {found.evaluations} mixtures{early}; {step_metric(report)} "
        f"{found.start:.4f} at the start, {found.best:.4f} found"
    )


def _soup_rows(report: Report, soup: Soup) -> list[ScoredRow]:
    rows: list[ScoredRow] = []
    if report.best is not None:
        rows.append(ScoredRow(f"{report.name_of_best} ({report.best.path})", report.best.scores))
    if report.uniform is not None:
        rows.append(ScoredRow(f"uniform soup ({len(report.ingredients)} ingredients)", report.uniform.scores))
    if report.second_best is not None:
        rows.append(ScoredRow(f"second best ({report.second_best.path})", report.second_best.scores))
    for name, ensemble in (("ensemble", report.ensemble), ("greedy ensemble", report.greedy_ensemble)):
        if ensemble is not None:
            rows.append(ScoredRow(f"{name} ({len(ensemble.members)} networks)", ensemble.scores))
    if len(report.alphas) > 1:
        rows += [ScoredRow(f"alpha {point.alpha:g}", point.scores) for point in report.alphas]
    if report.scale is not None:
        rows += [ScoredRow(f"scale {point.scale:g}", point.scores) for point in report.scale.points]
    if (other := report.other_statistics) is not None:
        rows.append(ScoredRow(f"the soup, batch norm {other.kind}", other.scores))
    return [*rows, ScoredRow(_soup_label(report), soup.scores)]


def _other_statistics(report: Report, soup: Soup) -> list[str]:
    """Return the soup's score on the first set with batch-norm statistics made the other way."""
    other = report.other_statistics
    name = next((name for name in report.sets if other is not None and name in other.scores), None)
    if other is None or name is None:
        return []
    metric = metric_of(report, name)
    own, theirs = soup.scores.get(name, {}).get(metric), other.scores[name].get(metric)
    if own is None or theirs is None or own.value is None or theirs.value is None:
        return []
    gain = theirs.value - own.value
    better = gain and (gain < 0) == (metric in report.lower_is_better.get(name, []))
    flag = "--recalibrate" if other.kind == "estimated again" else "batch_norm: average"
    unlike = report.best is not None and other.is_unlike_training(name, report.best.scores, soup.scores)
    offer = f": {flag} writes them" if better and not unlike else ""
    shown = f"{name} {metric} {score_cell(other.scores, name, metric).partition(' ±')[0]}"
    return [f"batch norm: with statistics {other.kind} the soup has {shown} ({signed(metric, gain)}){offer}"]


def _soup_label(report: Report) -> str:
    if report.stock is not None:
        return f"Model Stock ({len(report.ingredients) - 1} ingredients and {report.ingredients[-1].path})"
    if report.alpha is not None:
        return f"soup (alpha {report.alpha:g})"
    scaled = f", scale {report.scale.scale:g}" if report.scale is not None else ""
    return f"{report.command} soup ({len(report.parts_of_soup)} of {len(report.ingredients)}{scaled})"


def _members(soup: Soup) -> str:
    """Return the members' paths, with weights if these differ."""
    shown = soup.members[:MOST_MEMBERS]
    if len(set(soup.weights)) > 1 and soup.coefficients is None:
        shown = [f"{path} ({weight:.4g})" for path, weight in zip(shown, soup.weights, strict=False)]
    more = len(soup.members) - len(shown)
    return ", ".join(shown) + (f", and {more} more: soup.json has each" if more else "")


def soup_notes(report: Report) -> Iterator[str]:
    """Yield a note on the tensors and files that were not averaged."""
    soup = report.soup
    if soup is None:
        return
    if soup.differing:
        names = ", ".join(soup.differing[:3]) + (", ..." if len(soup.differing) > 3 else "")
        count = f"{len(soup.differing)} integer {'buffer' if len(soup.differing) == 1 else 'buffers'}"
        yield f"{count} copied from {soup.kept_from}, not averaged: {names}"
    if soup.left_out:
        files = "; ".join(soup.left_out[:5]) + ("; ..." if len(soup.left_out) > 5 else "")
        yield f"not in the soup as in the ingredients: {files}"
    if soup.not_mixed:
        yield f"not mixed, taken from {report.gives_unmixed}: {len(soup.not_mixed)} tensors"
    if soup.adapter is not None and soup.adapter.relative_error:
        error = f"{soup.adapter.relative_error:.2%}"
        yield f"adapter of rank {soup.adapter.rank}: relative error against the exact average {error}"


def _ranking_text(report: Report) -> Iterator[Part]:
    """Yield the table of single checkpoints, then each soup's comparison with the best ingredient, and its gates."""
    rows = [
        ScoredRow(f"{one.path} ({one.made_by})" if one.made_by else one.path, one.scores) for one in report.ingredients
    ]
    table = score_table(report, "checkpoint", rows)
    trained = [by_trainer(one.trainer_metrics) for one in report.ingredients]
    cells = [[*row, by] for row, by in zip(table.rows, trained, strict=True)]
    yield Table(table.caption, [*table.columns, Column("by its trainer")], cells).without_empty()
    if said := list(_objective_text(report)):
        yield said
    if report.flops is not None:
        yield [cost_of(report.flops)]
    for soup in dict.fromkeys([*(of.soup for of in report.comparisons), *(gate.soup for gate in report.gates)]):
        compared = [of for of in report.comparisons if of.soup == soup]
        against = f" against {compared[0].best}" if compared else ""
        gates = [describe_result(gate) for gate in report.gates if gate.soup == soup]
        yield [f"{soup}{against}:", *sentences(report, compared), *gates]


def _pair_table(report: Report) -> Table:
    """Return angle and gain of every pair, smallest angle first."""
    assert report.pairs is not None
    in_order = sorted(report.pairs.pairs, key=lambda pair: (pair.angle is None, pair.angle or 0.0))
    headings = ["angle", *(f"gain on {name}" for name in report.sets)]
    rows = [
        [
            " + ".join(pair.members),
            "" if pair.angle is None else f"{pair.angle:.1f}°",
            *(_gain(pair, name, metric_of(report, name)) for name in report.sets),
        ]
        for pair in in_order
    ]
    return Table("Pairs", [Column("pair"), *numbers(headings)], rows)


def _gain(pair: Pair, name: str, metric: str) -> str:
    return next((signed(metric, of.difference) for of in pair.gains if (of.set, of.metric) == (name, metric)), "")
