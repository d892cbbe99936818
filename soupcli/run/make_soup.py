"""Makes the soup of a command: writes its folder, reports and prints it, and warns of scores that are too high."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli import processes
from soupcli.checkpoints.compare.head_rows import moved_rows
from soupcli.checkpoints.groups import group_paths
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.cli.parsing import DONE
from soupcli.evaluation.compare import Side, best_side, compare
from soupcli.files.lock import claim
from soupcli.mixing.adapter_mean import soup_specs
from soupcli.mixing.mixture import Mixture, differing
from soupcli.mixing.old_soup import check_place
from soupcli.mixing.soup_folder import SoupFolder, check_free, check_space
from soupcli.output import ci as ci_formats
from soupcli.output import console
from soupcli.output.text import report_text, soup_notes
from soupcli.report.scores import Scored
from soupcli.report.soups import Adapter, Coefficients, LearnedFit, Soup
from soupcli.run.dry_run import Plan, show_plan
from soupcli.run.finish_folder import finish
from soupcli.run.flops import flops_to_report
from soupcli.run.gates import exit_code, verdicts
from soupcli.run.methods.batch_norm import other_evaluations, other_statistics, recalibration_advice
from soupcli.run.run import Run
from soupcli.run.suspicions import say_not_a_number, say_suspicions, say_unlike_training
from soupcli.run.to_report import gate_to_report, scores_to_report, search_to_report
from soupcli.run.words.resolve import resolve
from soupcli.wording import counted

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.soups import SoupOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.evaluation.gates import GateOutcome
    from soupcli.evaluation.score import Score
    from soupcli.mixing.fill_folder import Filled
    from soupcli.report.comparisons import Comparison
    from soupcli.report.report import Report
    from soupcli.report.soups import OtherStatistics
    from soupcli.soups.search import SearchResult


class FinishedSoup(NamedTuple):
    """A soup that is decided and scored, and not yet written."""

    mixture: Mixture
    scores: Mapping[str, Score]
    ingredients: Sequence[tuple[Checkpoint, Mapping[str, Score]]]  # best first if there was a ranking
    best: tuple[Checkpoint, Mapping[str, Score]] | None = None
    uniform: Mapping[str, Score] | None = None
    search: SearchResult | None = None
    fit: LearnedFit | None = None
    coefficients: Coefficients | None = None
    parts: Mapping[str, Any] = {}  # further keys of the report
    rival: Side | None = None  # what the soup is compared with
    base: Checkpoint | None = None  # of a scaled soup: a member that is no ingredient

    def tried(self) -> int | None:
        """How many mixtures the selecting set chose from; None if that is not counted."""
        alone = sum(bool(scores) for _, scores in self.ingredients)
        scaled = self.parts["scale"].evaluations if "scale" in self.parts else 0
        searched = self.search or self.parts.get("coefficient_search")
        return alone + searched.evaluations + scaled if searched is not None else None


class Prepared(NamedTuple):
    """A checked run's plan, for --dry-run, and the function that makes its soup."""

    plan: Callable[[], Plan]
    finish: Callable[[], FinishedSoup]


Prepare = Callable[[Run, Any], Prepared]  # the part of a command that is its own: from a run and its options


def make_soup(prepare: Prepare, options: SoupOptions, invocation: Invocation) -> int:
    """Make, write and print the soup of a command. Returns the exit code."""
    with Run(resolve(options, invocation)) as run:
        run.check_mixable()
        prepared = prepare(run, options)
        if options.dry_run:
            plan = prepared.plan()
            return show_plan(run, plan._replace(evaluations=plan.evaluations + other_evaluations(run)))
        with reserved(run, options):
            return write_and_report(run, options, decided(run, prepared))


def decided(run: Run, prepared: Prepared) -> FinishedSoup:
    """Decide and score the soup, and warn of what only numbers tell, which a dry run does not read."""
    moved = moved_rows([run.names.applied(one) for one in run.singles], run.selection)
    if moved is not None:
        run.warn(moved)
    return prepared.finish()


@contextmanager
def reserved(run: Run, options: SoupOptions) -> Iterator[None]:
    """Claim the soup's folder for the block. Raises OutputError if it cannot be written or the disk is too full."""
    out = run.recipe.out
    if not processes.is_first():
        yield
        return
    check_place(out, run.inputs)  # before anything is made in an input's folder
    with claim(out):
        check_free(out, force=options.force, inputs=run.inputs)
        one = run.average()(run.checkpoints[:1])
        check_space(out.absolute().parent, sum(spec.nbytes for spec in soup_specs(one).values()))
        yield


def write_and_report(run: Run, options: SoupOptions, finished: FinishedSoup) -> int:
    """Write the soup folder in one step and print it. Returns the exit code, which says whether all gates pass."""
    with processes.first_alone() as is_first:
        return _write_and_report(run, options, finished) if is_first else DONE


def _write_and_report(run: Run, options: SoupOptions, finished: FinishedSoup) -> int:
    with SoupFolder(run.recipe.out, force=options.force, inputs=run.inputs) as folder:
        report, found = write(run, finished, folder)
    run.progress.close()
    _show(run, options, report)
    run.trackers.finished(report, run.recipe.out)
    return exit_code(found)


def write(run: Run, finished: FinishedSoup, folder: SoupFolder) -> tuple[Report, list[GateOutcome]]:
    """Fill the folder and give it its final name. Returns the report in it, and the gates."""
    from soupcli.mixing.fill_folder import fill
    from soupcli.mixing.write_soup import WritingOptions

    with run.phase("mix") as progress:
        statistics = run.evaluators.running_statistics(finished.mixture) if run.sets else {}
        writing = WritingOptions(
            max_shard_size=run.recipe.max_shard_size,
            adapter_rank=run.recipe.adapter_rank,
            overrides=statistics,
            format=run.recipe.format,
            keep_state=run.recipe.keep_state,
            merge_adapters=run.recipe.merge_adapters,
            device=run.device.mixing,
        )
        filled = fill(folder, finished.mixture, run.hashes, writing, progress)
    if filled.adapter is not None and filled.adapter.relative_error and run.sets:
        finished = finished._replace(scores=_scores_as_written(run, folder))
    say_suspicions(run, finished.ingredients)
    say_not_a_number(run, finished.scores)
    rival = _rival(run, finished)
    finished = finished._replace(rival=rival)
    found = verdicts(run.resolved.gates, finished.scores, rival.scores if rival is not None else None)
    return finish(folder, _report(run, finished, filled, found), finished.mixture), found


def _scores_as_written(run: Run, folder: SoupFolder) -> dict[str, Score]:
    """Return the scores of an approximated adapter as written, not of the mean that it approximates."""
    adapter = open_checkpoint(folder.path, How(base=run.recipe.base))
    with run.phase("evaluate"):
        return run.evaluators.on_all(Mixture.uniform([adapter]))


def _report(run: Run, finished: FinishedSoup, filled: Filled, found: Sequence[GateOutcome]) -> Report:
    mixture, out, written, notes = finished.mixture, run.recipe.out, filled.written, filled.adapter
    dtypes = Counter(spec.dtype.value for spec in filled.specs.values())
    soup = Soup(
        path=str(out / written.main),
        hash=written.hash,
        members=[str(member.path) for member in mixture.members],
        weights=list(mixture.weights),
        groups=group_paths(mixture.members, run.checkpoints) if run.recipe.window.group_by is not None else [],
        scores=scores_to_report(finished.scores),
        bytes=written.nbytes,
        files=filled.files,
        file_hashes=filled.file_hashes,
        left_out=filled.left_out,
        format=filled.written.format,
        weight_files=list(filled.written.weight_files),
        differing=differing(mixture),
        dtypes=dict(dtypes),
        not_mixed=sorted(name for name in mixture.kept.tensors if not run.selection.mixes(name)),
        aliases=dict(run.names.aliases),
        passed_over=sorted(run.names.passed_over),
        adapter=Adapter(rank=notes.rank, relative_error=notes.relative_error) if notes is not None else None,
        kept_from=str(mixture.kept.path),
        coefficients=finished.coefficients,
    )
    comparisons: list[Comparison] = []
    best, rival = finished.best, finished.rival
    if rival is not None:
        with run.phase("compare") as progress:
            tried = dict.fromkeys(run.resolved.selecting_sets, finished.tried()) if run.resolved.selects else {}
            comparisons = compare(Side(soup.path, finished.scores), rival, tried=tried, progress=progress)
    seen = _shared_examples(run)
    return run.report(
        [run.ingredient(checkpoint, scores) for checkpoint, scores in finished.ingredients],
        warnings=[*_warnings(run, seen), *recalibration_advice(run, mixture)],
        **search_to_report(run.recipe.greedy.search, finished.search) if finished.search is not None else {},
        soup=soup,
        best=Scored(path=str(best[0].path), scores=scores_to_report(best[1])) if best else None,
        uniform=Scored(path="", scores=scores_to_report(finished.uniform)) if finished.uniform is not None else None,
        learned=finished.fit,
        comparisons=comparisons,
        shared_examples=seen,
        gates=[gate_to_report(verdict, soup.path) for verdict in found],
        **finished.parts,
        other_statistics=_other_statistics(run, finished),
        flops=flops_to_report(
            run, ingredients=len(finished.ingredients), members=sum(one is not finished.base for one in mixture.members)
        ),
    )


def _other_statistics(run: Run, finished: FinishedSoup) -> OtherStatistics | None:
    """Evaluate the soup with the other batch-norm statistics, once even if it is written often. See batch_norm.py."""
    soup = finished.mixture
    if soup not in run.other_statistics:
        with run.phase("evaluate"):
            run.other_statistics[soup] = found = other_statistics(run, soup)
            if found is not None and finished.best is not None:
                say_unlike_training(run, scores_to_report(finished.best[1]), scores_to_report(finished.scores), found)
    return run.other_statistics[soup]


def _show(run: Run, options: SoupOptions, report: Report) -> None:
    assert report.soup is not None
    for warning in report.warnings:
        run.warn(warning)
    if options.as_json:
        console.print_json(report.to_json())
    elif options.quiet:
        console.print_lines([report.soup.path])
    elif options.output_format != "text":
        console.print_formatted(ci_formats.formatted(options.output_format, report, run.recipe.place))
    else:
        for line in soup_notes(report):
            console.note(line)
        console.print_report(report_text(report))


def _rival(run: Run, finished: FinishedSoup) -> Side | None:
    """Return the best ingredient, cross-fitted on the set that picked it unless that selected the soup as well."""
    if finished.best is None:
        return None
    everyone = [scores[run.selecting] for _, scores in finished.ingredients if run.selecting in scores]
    path, scores = str(finished.best[0].path), finished.best[1]
    return best_side(path, scores, run.selecting, everyone, fair=not run.resolved.selects)


def _shared_examples(run: Run) -> dict[str, int]:
    """Count the examples of each further set that are also in the selecting one. Sets that share none are left out."""
    if not run.resolved.selects:
        return {}
    chose = run.resolved.selecting_sets
    others = [name for name in run.sets if name not in chose]
    found = {name: max((run.evaluators.shared(name, first) or 0) for first in chose) for name in others}
    return {name: count for name, count in found.items() if count}


def _offer(run: Run, what: str) -> str:
    able = all(run.sets[name].shows_examples for name in run.resolved.selecting_sets)
    return f"--holdout 0.5 chooses on one half of {what} and reports the other; or " if able else ""


def _warnings(run: Run, shared: Mapping[str, int]) -> list[str]:
    """Return the warnings that a reader of the scores needs."""
    found = []
    chose, name = " and ".join(run.resolved.selecting_sets), run.selecting if run.sets else ""
    if run.resolved.selects and len(run.resolved.selecting_sets) == len(run.sets) > 1:
        found.append(
            f"the soup was chosen on {chose}, so its scores there are too high, and no other set was given: "
            f"{_offer(run, 'each')}objective: {{SET: weight}} leaves sets out of the choice"
        )
    elif run.resolved.selects and len(run.sets) == 1:
        found.append(
            f"the soup was chosen on {name}, so its score there is too high, and no other set was given: "
            f"{_offer(run, 'it')}name a set that takes no part in the choice (--val {name} OTHER)"
        )
    for name, count in shared.items():
        examples = counted(count, "example")
        found.append(f"{name} shares {examples} with {chose}, which chose this soup: its score is too high as well")
    return found
