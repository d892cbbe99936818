"""`soup greedy --strategy experts`: an expert for each group of sets whose scores go together, weighted on a grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soupcli.datasets.holdout import whole_of
from soupcli.errors import UsageError
from soupcli.mixing.mixture import Mixture
from soupcli.report.soups import ExpertGroup, Experts
from soupcli.run.gates import Gatekeeper, check_gates
from soupcli.run.methods.last_steps import Rival, finish_search
from soupcli.run.methods.objective import chosen_by
from soupcli.run.methods.windows import all_at_once
from soupcli.soups.experts import FEWEST, Expert, correlations, expert_of, groups_of, most_weights, weights_tried
from soupcli.soups.search import SearchResult
from soupcli.soups.trials import Trial, best_of
from soupcli.soups.weighted import weighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.soups import GreedyOptions
    from soupcli.run.make_soup import FinishedSoup
    from soupcli.run.methods.objective import Choice
    from soupcli.run.run import Run


def check_experts(run: Run, options: GreedyOptions) -> None:
    """Raises UsageError if there are too few sets or ingredients to correlate, and for flags that do not go with it."""
    if run.recipe.greedy.strategy != "experts":
        return
    for flag, given in (("--scores", options.scores), ("--logits", options.logits)):
        if given is not None:
            raise UsageError(
                f"--strategy experts: {flag} {given} is for one set that selects", hint=f"leave out {flag}"
            )
    sets = [whole_of(name) for name in run.resolved.selecting_sets]
    if len(sets) < 2:
        raise UsageError(
            f"--strategy experts: only {sets[0]} selects, and experts are of several sets", hint="--val A B ..."
        )
    if len(run.checkpoints) < FEWEST:
        raise UsageError(
            f"--strategy experts: {len(run.checkpoints)} ingredients, correlations need {FEWEST}",
            hint="soup greedy without --strategy",
        )


def expert_evaluations(run: Run) -> int:
    """Return the most soups that are tried: the best ingredient, and weights of as many experts as there are sets."""
    most = min(len(run.resolved.selecting_sets), len(run.checkpoints))
    return 1 + most_weights(most, run.recipe.greedy.parts)


def finish_experts(run: Run, options: GreedyOptions) -> FinishedSoup:
    """Rank, choose the experts, try their weights, then score the soup on the sets that do not select."""
    check_gates(run)
    with run.phase("rank") as progress:
        choice = chosen_by(run, run.checkpoints, progress)
    best = choice.ranking[0].checkpoint
    average, alone = run.average(best), Mixture.uniform([best])
    keeper = Gatekeeper(run, alone, choice.alone[best])
    seen, experts = _experts(run, choice)
    with run.phase("greedy") as progress:
        found = best_of(
            Trial(f"{best.path} alone", average([best])),
            _trials(run, experts, best),
            keeper.guarded(choice.evaluate),
            candidate=best,
            phase="experts",
            foresee=all_at_once(run),
            progress=progress,
        )
    ranked = [one.checkpoint for one in choice.ranking]
    return finish_search(
        run,
        SearchResult(found, [(ranked, found)]),
        choice,
        keeper,
        Rival("best ingredient", best),
        ranked,
        with_uniform=options.with_uniform,
        parts={"experts": seen},
    )


def _experts(run: Run, choice: Choice) -> tuple[Experts, list[Checkpoint]]:
    """Return the correlations for the report, and the experts, each once, in the order of the ranking."""
    assert choice.objective is not None
    settings, sets = run.recipe.greedy, [goal.name for goal in choice.objective.goals]
    found = correlations(list(choice.alone.values()), sets)
    groups = [expert_of(group, choice.objective, choice.alone) for group in groups_of(sets, found, settings.together)]
    chosen = {group.ingredient for group in groups}
    if len(chosen) == 1:
        run.warn(_one_expert(groups))
    elif settings.parts <= len(chosen):
        run.warn(
            f"experts: there are {len(chosen)}, and greedy.parts is {settings.parts}: only their mean was tried, as "
            "each has at least one part"
        )
    seen = Experts(
        sets=[whole_of(name) for name in sets],
        correlations=[[value if math.isfinite(value) else None for value in row] for row in found],
        ingredients=len(choice.alone),
        threshold=settings.together,
        groups=[ExpertGroup(sets=[*map(whole_of, of.sets)], expert=str(of.ingredient.path)) for of in groups],
        parts=settings.parts,
    )
    return seen, [ranked.checkpoint for ranked in choice.ranking if ranked.checkpoint in chosen]


def _one_expert(groups: Sequence[Expert]) -> str:
    why = "all sets go together" if len(groups) == 1 else f"it is the best of each of the {len(groups)} groups of sets"
    return f"experts: {groups[0].ingredient.path} is the only one, so there is nothing to mix: {why}"


def _trials(run: Run, experts: Sequence[Checkpoint], best: Checkpoint) -> list[Trial]:
    shared = dict(zip(run.checkpoints, run.sharing(best), strict=True))
    members = [shared[one] for one in experts]
    found = []
    for weights in weights_tried(len(experts), run.recipe.greedy.parts):
        name = " + ".join(f"{weight:.3g} {one.path}" for weight, one in zip(weights, experts, strict=True))
        unlike = weights if len(set(weights)) > 1 else None
        found.append(Trial(name, weighted(members, unlike, dtype=run.output_dtype, keep_from=best)))
    return found
