"""`--scores FILE`: a ranking by scores from a file, without a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.errors import UsageError
from soupcli.evaluation.score import Score
from soupcli.evaluation.scores_file import read_scores
from soupcli.metrics.metric import MetricValue
from soupcli.metrics.table import metric_named
from soupcli.output import console
from soupcli.output.text import report_text
from soupcli.report.scores import Scored
from soupcli.run.deliver import deliver
from soupcli.run.methods.objective import refuse_objective
from soupcli.run.to_report import lower_is_better, scores_to_report
from soupcli.soups.ranking import Ranked, sorted_by_score
from soupcli.wording import SHARES

if TYPE_CHECKING:
    from soupcli.cli.options.common import ReportOptions
    from soupcli.report.report import Report
    from soupcli.run.run import Run


def ranking_of_file(run: Run, file: Path, selecting: str, metric: str) -> list[Ranked]:
    """Return the run's checkpoints, best first by the file's column for the set `selecting`."""
    scores = read_scores(file)
    column = scores.column_of(selecting)
    rows = scores.of(run.checkpoints)
    if others := scores.others(run.checkpoints):
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        run.warn(f"{file}: {len(others)} of its {len(scores.rows)} models are not among the checkpoints: {shown}")
    return sorted_by_score([Ranked(c, _score(file, column, row[column], metric)) for c, row in rows.items()])


def rank_by_file(run: Run, options: ReportOptions, file: Path) -> int:
    """Rank by the scores in the file, then print and report the ranking."""
    report, paths = report_by_file(run, file, options.val or [])
    run.progress.close()
    if deliver(options, report, run.trackers, paths=paths):
        console.print_report(report_text(report))
    return 0


def report_by_file(run: Run, file: Path, words: Sequence[str]) -> tuple[Report, list[str]]:
    """Return a report of the ranking, and the paths in its order.

    `words` name columns of the file, all if there are none. The first column ranks.
    """
    refuse_objective(run, {"--scores": file})
    metric = run.recipe.metric
    scores = read_scores(file)
    columns = [scores.column_of(word) for word in words] or scores.columns
    ranking = ranking_of_file(run, file, columns[0], metric)
    rows = scores.of(run.checkpoints)
    named = [(c, {name: _score(file, name, rows[c][name], metric) for name in columns}) for c, _ in ranking]
    ingredients = [run.ingredient(checkpoint, found) for checkpoint, found in named]
    best = Scored(path=str(named[0][0].path), scores=scores_to_report(named[0][1]))
    report = run.report(ingredients, best=best, scores_file=str(file)).model_copy(
        update={
            "selecting_set": columns[0],
            "sets": columns,
            "selecting_metrics": dict.fromkeys(columns, metric),
            "lower_is_better": {name: lower_is_better(score) for name, score in named[0][1].items()},
        }
    )
    return report, [str(checkpoint.path) for checkpoint, _ in named]


def _score(file: Path, column: str, value: float, metric: str) -> Score:
    """Return a score without standard error or outcomes. Raises UsageError for a share outside 0 to 1."""
    if metric in SHARES and not 0 <= value <= 1:
        raise UsageError(f"{file}: {column} is {value:g}, {metric} is a fraction of 1", hint="divide per cents by 100")
    found = {metric: MetricValue(value, None, None)}
    return Score(found, metric, metric_named(metric).higher_is_better, 0, {})
