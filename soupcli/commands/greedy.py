"""`soup greedy --ckpts P... --val V`: Recipe 1 of the paper over the ranking on the first set.

soup greedy --ckpts 'run/checkpoint-*/' --windows 4,8,16 --val V       # the last N of one run instead, for each N
soup greedy --ckpts P... --strategy experts --val A B C                # one expert for sets that go together, weighted
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.checkpoints.read_ahead import announce_checkpoint
from soupcli.datasets.holdout import whole_of
from soupcli.errors import UsageError
from soupcli.mixing.mixture import Mixture
from soupcli.run.dry_run import Plan
from soupcli.run.external_scores import ranking_of_file
from soupcli.run.gates import Gatekeeper, check_gates, gated_evaluations
from soupcli.run.make_soup import Prepared, make_soup
from soupcli.run.methods.ensembles import ensembles, predict_from_logits, say_again
from soupcli.run.methods.experts import check_experts, expert_evaluations, finish_experts
from soupcli.run.methods.last_steps import Rival, finish_search
from soupcli.run.methods.objective import Choice, chosen_by, refuse_objective
from soupcli.run.methods.scale import check_scale, scale_evaluations
from soupcli.run.methods.windows import check_windows, finish_windows, window_evaluations
from soupcli.soups.search import most_evaluations, search

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from soupcli.cli.options.soups import GreedyOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.run.make_soup import FinishedSoup
    from soupcli.run.run import Run
    from soupcli.soups.ranking import Ranked


def greedy(options: GreedyOptions, invocation: Invocation) -> int:
    """Add checkpoints, best first, while the mean gets no worse."""
    return make_soup(prepare, options, invocation)


def prepare(run: Run, options: GreedyOptions) -> Prepared:
    """Check the set, the windows and the logits that the options need. See run/make_soup.py."""
    run.require_sets()
    check_windows(run, options)
    check_experts(run, options)
    check_scale(run)
    budgeted = run.recipe.greedy.strategy == "budgeted"
    refuse_objective(run, {"--scores": options.scores, "--logits": options.logits, "--strategy budgeted": budgeted})
    if budgeted and run.logits is None and not options.dry_run:
        hint = "soup rank --save-logits DIR, then soup greedy --logits DIR"
        raise UsageError("--strategy budgeted: needs --logits", hint=hint)
    if options.speculate and options.jobs == 1 and processes.count() == 1:
        run.warn(f"--speculate {options.speculate}: one job evaluates nothing meanwhile: add --jobs N, or use torchrun")
    finish = {"windows": finish_windows, "experts": finish_experts}.get(run.recipe.greedy.search, _finish)
    return Prepared(lambda: _plan(run, options), lambda: finish(run, options))


def _plan(run: Run, options: GreedyOptions) -> Plan:
    chosen_on = len(run.resolved.selecting_sets)
    others = (len(run.sets) - chosen_on) * (3 if options.with_uniform else 2) + chosen_on * options.with_uniform
    evaluations, trials = _most_evaluations(run)
    others += gated_evaluations(run, trials + scale_evaluations(run))
    return Plan(chosen_on * (evaluations + scale_evaluations(run)) + others, run.average()(run.checkpoints))


def _most_evaluations(run: Run) -> tuple[int, int]:
    """Return the most scores that are needed on the selecting set, and how many of them are of trial soups."""
    if run.recipe.greedy.windows is not None:
        evaluations = window_evaluations(run)
        return evaluations, evaluations
    if run.recipe.greedy.strategy == "experts":
        evaluations = expert_evaluations(run)
        return len(run.checkpoints) + evaluations, evaluations
    evaluations = most_evaluations(len(run.checkpoints), run.recipe.greedy)
    return evaluations, evaluations - len(run.checkpoints)


def _finish(run: Run, options: GreedyOptions) -> FinishedSoup:
    """Rank, search, then score the soup on the sets that do not select."""
    check_gates(run)
    choice = _choice(run, options)
    ranking = choice.ranking
    best = ranking[0].checkpoint
    average = run.average(best)
    measured = (
        choice.alone[best] if options.scores is None else {run.selecting: choice.evaluate(Mixture.uniform([best]))}
    )
    keeper = Gatekeeper(run, Mixture.uniform([best]), measured)
    with run.phase("greedy") as progress:
        found = search(
            ranking,
            keeper.guarded(choice.evaluate),
            run.recipe.greedy,
            average=average,
            predict=predict_from_logits(run),
            announce=announce_checkpoint,
            foresee=partial(_foreseen, run, options.speculate),
            progress=progress,
        )
    finished = finish_search(
        run,
        found,
        choice,
        keeper,
        Rival("best ingredient", best),
        [ranked.checkpoint for ranked in ranking],
        with_uniform=options.with_uniform,
        parts={"scores_file": str(options.scores)} if options.scores is not None else {},
    )
    return _with_ensembles(run, finished, ranking) if run.logits is not None else finished


def _foreseen(run: Run, number: int, coming: Iterator[Mixture]) -> AbstractContextManager[None]:
    """Return how many further candidates other processes or jobs evaluate meanwhile, in case this one is left out."""
    return run.evaluators.expecting(list(islice(coming, number + 1)) if number else [])


def _with_ensembles(run: Run, finished: FinishedSoup, ranking: list[Ranked]) -> FinishedSoup:
    """Return the finished soup with ensembles, and the scores of each ingredient on all sets."""
    beside = ensembles(run, ranking)
    ingredients = [
        (ranked.checkpoint, {**scores, run.selecting: ranked.score})
        for ranked, (_, scores) in zip(ranking, beside.ingredients, strict=True)
    ]
    say_again(run)
    parts = {**finished.parts, **beside.parts}
    return finished._replace(ingredients=ingredients, parts=parts)


def _choice(run: Run, options: GreedyOptions) -> Choice:
    """Rank all checkpoints by scores that are measured or read from --scores, and return what decides."""
    if options.scores is not None:
        selecting, evaluators = run.selecting, run.evaluators
        ranking = ranking_of_file(run, options.scores, whole_of(selecting), evaluators.metric_of(selecting))
        return Choice(evaluators.on(selecting), ranking, {one: {selecting: score} for one, score in ranking})
    with run.phase("rank") as progress:
        return chosen_by(run, run.checkpoints, progress)
