"""Scores each checkpoint by itself on every set, for `soup rank` and `soup eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli import processes
from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.cli.options.common import GatedOptions, ReportOptions
from soupcli.cli.parsing import DONE
from soupcli.datasets.holdout import whole_of
from soupcli.errors import SoupError, UsageError
from soupcli.evaluation.compare import Side, best_side, compare
from soupcli.evaluation.score import Score
from soupcli.files.own_file import check_target
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.soup_folder import REPORT
from soupcli.output import ci as ci_formats
from soupcli.output import console
from soupcli.output.text import report_text
from soupcli.report.report_file import read_report
from soupcli.report.scores import Scored
from soupcli.run.deliver import deliver
from soupcli.run.dry_run import Plan, show_plan
from soupcli.run.flops import flops_to_report
from soupcli.run.gates import check_gates, exit_code, verdicts
from soupcli.run.methods.ensembles import say_again
from soupcli.run.methods.objective import choice_of, chosen_by, objective_to_report, uses_objective
from soupcli.run.run import Row, Run
from soupcli.run.suspicions import say_suspicions
from soupcli.run.to_report import gate_to_report, scores_to_report

if TYPE_CHECKING:
    from soupcli.evaluation.gates import GateOutcome
    from soupcli.report.comparisons import Comparison
    from soupcli.report.report import Report

BOTH = "soup eval --ckpts soup/ runs/*/ has both"
OPEN = f"there is no ingredient among the checkpoints ({BOTH})"
Measured = tuple[Checkpoint, dict[str, Score]]


def score_alone(run: Run, options: ReportOptions) -> int:
    """Rank the checkpoints on the selecting set, evaluate them on the others, print and report."""
    run.require_sets()
    if options.dry_run:
        return show_plan(run, Plan(evaluations=len(run.checkpoints) * len(run.sets)))
    if options.report is not None and processes.is_first():
        check_target(options.report, "report")
    measured = measure_alone(run)
    with processes.first_alone() as is_first:
        return _show(run, options, measured) if is_first else DONE


def measure_alone(run: Run) -> list[Measured]:
    """Return the checkpoints, best first on the selecting set, each with its score on every set."""
    check_gates(run)
    run.require_sets()
    for warning in run.resolved.warnings:
        run.warn(warning)
    with run.phase(run.command.name) as progress:
        choice = chosen_by(run, run.checkpoints, progress)
        ranking = choice.ranking
        rows = [Row(str(best.path), Mixture.uniform([best]), choice.alone[best]) for best, _ in ranking]
        with run.evaluators.expecting([row.weights for row in rows]):
            scores = run.scores(rows)
    run.progress.close()
    measured = [(ranked.checkpoint, row) for ranked, row in zip(ranking, scores, strict=True)]
    others = [(one, {name: row[name] for name in row if name not in choice.alone[one]}) for one, row in measured]
    say_suspicions(run, others)  # those of the selecting sets were said before
    say_again(run)
    return measured


def _show(run: Run, options: ReportOptions, rows: Sequence[Measured]) -> int:
    report, found = report_alone(run, rows)
    if deliver(options, report, run.trackers, paths=[str(checkpoint.path) for checkpoint, _ in rows]):
        if isinstance(options, GatedOptions) and options.output_format != "text":
            console.print_formatted(ci_formats.formatted(options.output_format, report, run.recipe.place))
        else:
            console.print_report(report_text(report))
    return exit_code(found)


def report_alone(run: Run, rows: Sequence[Measured]) -> tuple[Report, list[GateOutcome]]:
    """Return the report of the scored checkpoints, and the gates of the soups among them."""
    best = Scored(path=str(rows[0][0].path), scores=scores_to_report(rows[0][1]))
    soups = {checkpoint: report for checkpoint, _ in rows if (report := _report_of(checkpoint)) is not None}
    with run.phase("compare"):
        judged = _judged(run, rows, soups)
    report = run.report(
        [run.ingredient(one, scores).model_copy(update={"made_by": _made_by(soups.get(one))}) for one, scores in rows],
        best=best,
        comparisons=[comparison for one in judged for comparison in one.comparisons],
        gates=[gate_to_report(verdict, one.soup.path) for one in judged for verdict in one.verdicts],
        flops=flops_to_report(run, ingredients=len(rows)),
        **(objective_to_report(choice_of(run, dict(rows))) if uses_objective(run) else {}),
    )
    return report, [verdict for one in judged for verdict in one.verdicts]


class _Judged(NamedTuple):
    """A soup among the checkpoints, and the best ingredient among them."""

    soup: Side
    best: Side | None
    comparisons: list[Comparison]
    verdicts: list[GateOutcome]


def _judged(run: Run, rows: Sequence[Measured], soups: Mapping[Checkpoint, Report]) -> list[_Judged]:
    """Compare every soup among the rows with the best ingredient among them, and check the gates."""
    if not run.command.judges_soups:
        return []
    held = set(soups) or {row for row, _ in rows[:1] if len(rows) == 1}  # one alone may be a soup without its report
    alone = [(row, scores) for row, scores in rows if row not in held]
    best = Side(str(alone[0][0].path), alone[0][1]) if alone else None
    if run.recipe.require_gain is not None and (best is None or not soups):
        raise UsageError(
            f"--require-gain: there is no {'ingredient' if soups else 'soup'} among the checkpoints",
            hint=BOTH,
        )
    if run.resolved.gates and not held:
        run.warn(f"gates: not checked, none of the checkpoints is a soup ({BOTH})")
    found = []
    for row, scores in rows:
        if row in held:
            side, rival = Side(str(row.path), scores), best
            if best is not None:
                everyone = [of_one[run.selecting] for _, of_one in alone]
                fair = not _selected_on(soups[row], run.selecting)
                rival = best_side(best.path, best.scores, run.selecting, everyone, fair=fair)
            comparisons = compare(side, rival, progress=run.progress) if rival is not None else []
            outcomes = verdicts(run.resolved.gates, scores, rival.scores if rival is not None else None)
            for one in [one.gate for one in outcomes if one.met is None]:
                run.warn(f"{one.key} {one.text!r}: not checked, {OPEN}")
            found.append(_Judged(side, rival, comparisons, outcomes))
    return [one for one in found if one.comparisons or one.verdicts]


def _selected_on(report: Report, name: str) -> bool:
    """Whether a soup may have been selected on a set of this name."""
    return not report.averages_all and whole_of(report.selecting_set or name) == whole_of(name)


def _report_of(checkpoint: Checkpoint) -> Report | None:
    """Return the report of a soup that `soup` wrote, or None for other checkpoints."""
    path = checkpoint.path
    try:
        report = read_report((path if path.is_dir() else path.parent) / REPORT)
    except SoupError:
        return None
    ours = report.soup is not None and (path.is_dir() or path.name in report.soup.files)
    return report if ours else None


def _made_by(report: Report | None) -> str | None:
    """Return how a soup was made, e.g. `greedy, 7 of 12`, or None for other checkpoints."""
    if report is None or report.soup is None:
        return None
    return f"{report.command}, {len(report.parts_of_soup)} of {len(report.ingredients)}"
