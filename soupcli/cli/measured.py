"""What `soup rank` and `soup eval` share: checkpoints scored alone on every set, shown and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from soupcli.checkpoints.checkpoint import Checkpoint, announce_checkpoint
from soupcli.checkpoints.mixing import Mixture
from soupcli.checkpoints.writing import REPORT, check_file, write_whole
from soupcli.cli import console
from soupcli.cli.comparing import Side, compare, sentences
from soupcli.cli.options import ReportOptions
from soupcli.cli.plan import Plan, show_plan
from soupcli.cli.session import Row, Session, report_scores
from soupcli.cli.tables import score_table
from soupcli.errors import SoupError
from soupcli.report import Comparison, Report, Scored, read_report
from soupcli.soups.ranking import rank
from soupcli.validation.score import Score

Measured = tuple[Checkpoint, dict[str, Score]]


def measure(session: Session, options: ReportOptions) -> int:
    """Ranks the checkpoints on the selecting set, evaluates them on the others, shows and reports."""
    selecting = session.selecting
    if options.dry_run:
        return show_plan(session, Plan(evaluations=len(session.checkpoints) * len(session.sets)))
    if options.report is not None:
        check_file(options.report)
    with session.phase(session.name) as progress:
        evaluate = session.evaluators.on(selecting)
        ranking = rank(session.checkpoints, evaluate, announce=announce_checkpoint, progress=progress)
        scores = session.scores(
            [Row(str(best.path), Mixture.uniform([best]), {selecting: score}) for best, score in ranking]
        )
    session.progress.close()
    _show(session, options, [(ranked.checkpoint, row) for ranked, row in zip(ranking, scores, strict=True)])
    return 0


def _show(session: Session, options: ReportOptions, rows: Sequence[Measured]) -> None:
    best = Scored(path=str(rows[0][0].path), scores=report_scores(rows[0][1]))
    soups = {checkpoint: report for checkpoint, _ in rows if (report := _report_of(checkpoint)) is not None}
    with session.phase("compare"):
        compared = _compared(session, rows, soups)
    comparisons = [comparison for found, _, _ in compared for comparison in found]
    ingredients = [session.ingredient(checkpoint, scores) for checkpoint, scores in rows]
    report = session.report(ingredients, best=best, comparisons=comparisons)
    if options.report is not None:
        write_whole(options.report, report.to_json())
    if options.as_json:
        console.print_result(report.to_json())
    elif options.quiet:
        console.print_lines([str(checkpoint.path) for checkpoint, _ in rows])
    else:
        named = [(_label(checkpoint, soups.get(checkpoint)), scores) for checkpoint, scores in rows]
        table = score_table(named, list(session.sets), first="checkpoint", metrics=session.recipe.metrics)
        table.extend("by its trainer", [_by_trainer(checkpoint) for checkpoint, _ in rows])
        console.print_table(table)
        for found, soup, other in compared:
            console.print_sentences(["", f"{soup.path} against {other.path}:", *sentences(found, soup, other)])


def _compared(
    session: Session, rows: Sequence[Measured], soups: Mapping[Checkpoint, Report]
) -> list[tuple[list[Comparison], Side, Side]]:
    """Every soup among the rows against the first row that is none."""
    best = next((Side(str(row.path), scores) for row, scores in rows if row not in soups), None)
    if session.name != "eval" or best is None:
        return []
    sides = [Side(str(row.path), scores) for row, scores in rows if row in soups]
    return [(compare(side, best, progress=session.progress), side, best) for side in sides]


def _report_of(checkpoint: Checkpoint) -> Report | None:
    """The report of a soup that `soup` wrote, None for other checkpoints."""
    path = checkpoint.path
    try:
        report = read_report((path if path.is_dir() else path.parent) / REPORT)
    except SoupError:
        return None
    ours = report.soup is not None and (path.is_dir() or path.name in report.soup.files)
    return report if ours else None


def _label(checkpoint: Checkpoint, report: Report | None) -> str:
    """The path; a soup's with what it is made of, e.g. `soup (greedy, 7 of 12)`."""
    if report is None or report.soup is None:
        return str(checkpoint.path)
    return f"{checkpoint.path} ({report.command}, {len(report.soup.members)} of {len(report.ingredients)})"


def _by_trainer(checkpoint: Checkpoint) -> str:
    """What its trainer measured, e.g. `eval_loss 0.3127, best_metric 0.3001`."""
    metrics = checkpoint.origin.metrics
    names = sorted(metrics, key=lambda name: (name == "best_metric", name))
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names)
