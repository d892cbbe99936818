"""What `soup rank` and `soup eval` share: checkpoints scored alone on every set, shown and reported."""

from __future__ import annotations

from collections.abc import Sequence

from soupcli.checkpoints.checkpoint import Checkpoint, announce_checkpoint
from soupcli.checkpoints.mixing import Mixture
from soupcli.checkpoints.writing import REPORT, check_file, write_whole
from soupcli.cli import console
from soupcli.cli.options import ReportOptions
from soupcli.cli.plan import Plan, show_plan
from soupcli.cli.session import Row, Session, report_scores
from soupcli.cli.tables import score_table
from soupcli.errors import SoupError
from soupcli.report import Scored, read_report
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
    ingredients = [session.ingredient(checkpoint, scores) for checkpoint, scores in rows]
    report = session.report(ingredients, best=best)
    if options.report is not None:
        write_whole(options.report, report.to_json())
    if options.as_json:
        console.print_result(report.to_json())
    elif options.quiet:
        console.print_lines([str(checkpoint.path) for checkpoint, _ in rows])
    else:
        named = [(_label(checkpoint), scores) for checkpoint, scores in rows]
        table = score_table(named, list(session.sets), first="checkpoint", metrics=session.recipe.metrics)
        table.extend("by its trainer", [_by_trainer(checkpoint) for checkpoint, _ in rows])
        console.print_table(table)


def _label(checkpoint: Checkpoint) -> str:
    """The path; a soup's with what it is made of, e.g. `soup (greedy, 7 of 12)`."""
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    try:
        report = read_report(folder / REPORT)
    except SoupError:
        return str(checkpoint.path)
    if report.soup is None:
        return str(checkpoint.path)
    return f"{checkpoint.path} ({report.command}, {len(report.soup.members)} of {len(report.ingredients)})"


def _by_trainer(checkpoint: Checkpoint) -> str:
    """What its trainer measured, e.g. `eval_loss 0.3127, best_metric 0.3001`."""
    metrics = checkpoint.origin.metrics
    names = sorted(metrics, key=lambda name: (name == "best_metric", name))
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names)
