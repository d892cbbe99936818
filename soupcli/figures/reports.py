"""Joins several reports: the first one's ingredients, with the scores and soups of all.

`soup greedy` scores every ingredient only on the selecting set; `soup rank --val A B ... --report rank.json` on all.
Ingredients are recognised by their content, not by their paths.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.errors import UsageError
from soupcli.figures.figure import short_names
from soupcli.files.lock import finish_abandoned
from soupcli.mixing.soup_folder import REPORT
from soupcli.report.report_file import read_report
from soupcli.wording import SHARES, words_for

if TYPE_CHECKING:
    from soupcli.figures.figure import Role
    from soupcli.report.report import Report
    from soupcli.report.scores import Ingredient, MetricScore, Scores


class ReadReport(NamedTuple):
    """A report and its path."""

    path: Path
    report: Report


class MarkedScores(NamedTuple):
    """Weights with scores that are marked in a figure."""

    role: Role
    label: str
    scores: Scores


@dataclass(frozen=True)
class Reports:
    """See the head of this file."""

    sources: tuple[ReadReport, ...]
    ingredients: tuple[Ingredient, ...]
    marked: tuple[MarkedScores, ...]
    sets: tuple[str, ...]  # the selecting one first

    @property
    def first(self) -> Report:
        """The first report."""
        return self.sources[0].report

    @property
    def name(self) -> str:
        """The reports' name in errors."""
        return ", ".join(str(source.path) for source in self.sources)

    def having(self, part: str, *, wanted: str, command: str) -> ReadReport:
        """Return the first report that has `part`. Raises UsageError with `command`, which makes such a report."""
        found = next((source for source in self.sources if getattr(source.report, part)), None)
        if found is None:
            raise UsageError(f"{self.name}: no {wanted}", hint=f"{command} makes a report that has it")
        return found

    def lacking(self, part: str, why: str) -> UsageError:
        """Return the error for a part that no report has."""
        return UsageError(f"{self.name}: no {part}: {why}")

    def metric(self, name: str) -> str:
        """Return the metric that selects on a set. Raises UsageError if nothing was measured on it."""
        metrics = {metric for scores in self._all_scores() for metric in scores.get(name, {})}
        spec = self.first.recipe.get("val", {}).get(name, {})
        own = spec.get("metric") if isinstance(spec, dict) else None
        for metric in (own, self.first.recipe.get("metric"), *sorted(metrics)):
            if metric in metrics:
                return str(metric)
        raise UsageError(
            f"{self.name}: no score on {name}", hint="soup rank --val SET --report FILE makes a report with such scores"
        )

    def _all_scores(self) -> Iterable[Scores]:
        yield from (ingredient.scores for ingredient in self.ingredients)
        yield from (marked.scores for marked in self.marked)

    def ranking_command(self, sets: Sequence[str]) -> str:
        """Return the command that scores every ingredient on `sets`."""
        words = words_for([ingredient.path for ingredient in self.ingredients])
        return f"soup rank --ckpts {words} --val {shlex.join(sets)} --report rank.json"


def read(paths: Sequence[Path]) -> Reports:
    """Read reports from files, or from the folders of soups. Raises UsageError if one of them is not a report."""
    for path in paths:
        finish_abandoned(path)
    files = [path / REPORT if path.is_dir() else path for path in paths]
    return gather([ReadReport(file, read_report(file, ignore_unknown=True)) for file in dict.fromkeys(files)])


def gather(sources: Sequence[ReadReport]) -> Reports:
    """Join the reports. Raises UsageError for a later one without any ingredient of the first one."""
    first = sources[0].report
    scores: dict[str, Scores] = {ingredient.hash: {} for ingredient in first.ingredients}
    for source in sources:
        same = [ingredient for ingredient in source.report.ingredients if ingredient.hash in scores]
        if not same and source.report.ingredients and first.ingredients:
            raise UsageError(
                f"{source.path}: has none of the {len(first.ingredients)} ingredients of {sources[0].path}",
                hint="reports that are drawn together are of the same ingredients",
            )
        for ingredient in same:
            scores[ingredient.hash] = _joined(scores[ingredient.hash], ingredient.scores)
    marked = _marked(sources)
    soups = {source.report.soup.hash for source in sources if source.report.soup is not None}
    ingredients = [
        ingredient.model_copy(update={"scores": scores[ingredient.hash]})
        for ingredient in first.ingredients
        if ingredient.hash not in soups
    ]
    sets = list(dict.fromkeys(name for source in sources for name in source.report.sets))
    selecting = first.selecting_set
    ordered = sorted(sets, key=lambda name: name != selecting)
    return Reports(tuple(sources), tuple(ingredients), tuple(marked), tuple(ordered))


def _joined(one: Scores, other: Scores) -> Scores:
    return {name: {**other.get(name, {}), **one.get(name, {})} for name in (*one, *other)}


def _marked(sources: Sequence[ReadReport]) -> list[MarkedScores]:
    """Best ingredient, soups and ensembles of all reports, each once."""
    found: dict[tuple[str, str], MarkedScores] = {}
    for source in sources:
        report = source.report
        if report.best is not None:
            path = short_paths(report).get(report.best.path, report.best.path)
            best = MarkedScores("best", f"{report.name_of_best} ({path})", report.best.scores)
            known = found.get(("best", report.best.path))
            scores = _joined(known.scores, best.scores) if known else best.scores
            found["best", report.best.path] = best._replace(scores=scores)
        if report.uniform is not None:
            label = f"uniform soup ({len(report.ingredients)} ingredients)"
            found["uniform", ""] = MarkedScores("uniform", label, report.uniform.scores)
        if report.ensemble is not None:
            label = f"ensemble ({len(report.ensemble.members)} of {len(report.ingredients)})"
            found["ensemble", ""] = MarkedScores("ensemble", label, report.ensemble.scores)
        if report.greedy_ensemble is not None:
            label = f"greedy ensemble ({len(report.greedy_ensemble.members)} of {len(report.ingredients)})"
            found["greedy-ensemble", ""] = MarkedScores("greedy-ensemble", label, report.greedy_ensemble.scores)
        if report.soup is not None and report.soup.scores:
            soup, command = report.soup, report.command
            label = f"{command} soup ({len(report.parts_of_soup)} of {len(report.ingredients)})"
            others = [scored for scored in found.values() if scored.label == label]
            label += f", {source.path}" if others else ""
            key = ("uniform", "") if report.averages_all else ("soup", soup.hash)
            found[key] = MarkedScores(role_of(report), label, soup.scores)
    return list(found.values())


LINE = 44  # letters of a path that a table has room for


def short_paths(report: Report) -> dict[str, str]:
    """Each ingredient's path as tables of a page have it: long ones without what all of them share."""
    paths = [ingredient.path for ingredient in report.ingredients]
    if max(map(len, paths), default=0) <= LINE:
        return {path: path for path in paths}
    return dict(zip(paths, short_names(paths, LINE), strict=True))


def role_of(report: Report) -> Role:
    """Return the role of a report's soup, by the command that made it."""
    if report.averages_all:
        return "uniform"
    return "greedy" if report.steps or report.search else "learned" if report.is_learned else "soup"


def score_of(scores: Scores, name: str, metric: str) -> MetricScore | None:
    """Return a score, or None if it was not measured or is not a number."""
    score = scores.get(name, {}).get(metric)
    return score if score is not None and score.value is not None else None


def factor(metric: str) -> float:
    """Return the factor for drawn values of a metric: 100 for shares."""
    return 100.0 if metric in SHARES else 1.0


def titled(name: str, metric: str) -> str:
    """Return an axis title: set, metric, unit."""
    return f"{metric} on {name}{' (%)' if metric in SHARES else ''}"
