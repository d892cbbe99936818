"""What `soup rank` and `soup eval` share: checkpoints scored alone on every set, shown and reported."""

from __future__ import annotations

from collections.abc import Sequence

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.mixing import Mixture
from soupcli.checkpoints.writing import write_whole
from soupcli.cli import console
from soupcli.cli.options import ReportOptions
from soupcli.cli.plan import Plan, show_plan
from soupcli.cli.session import Session, report_scores
from soupcli.cli.tables import score_table
from soupcli.report import Scored
from soupcli.soups.ranking import rank
from soupcli.validation.score import Score

Row = tuple[Checkpoint, dict[str, Score]]


def measure(session: Session, options: ReportOptions) -> int:
    """Ranks the checkpoints on the selecting set, evaluates them on the others, shows and reports."""
    selecting = session.selecting
    if options.dry_run:
        return show_plan(session, Plan(evaluations=len(session.checkpoints) * len(session.sets)))
    with session.phase(session.name) as progress:
        ranking = rank(session.checkpoints, session.evaluators.on(selecting), progress=progress)
        rows = [(ranked.checkpoint, {selecting: ranked.score}) for ranked in ranking]
        for done, (checkpoint, scores) in enumerate(rows, 1):
            scores |= session.evaluators.on_all(Mixture.uniform([checkpoint]))
            if len(session.sets) > 1:
                progress("other sets", done, len(rows), note=str(checkpoint.path))
    session.progress.close()
    _show(session, options, rows)
    return 0


def _show(session: Session, options: ReportOptions, rows: Sequence[Row]) -> None:
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
        named = [(str(checkpoint.path), scores) for checkpoint, scores in rows]
        console.print_table(score_table(named, list(session.sets), first="checkpoint"))
