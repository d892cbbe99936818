"""The run's `objective:`: which sets select, by what, and the ranking of the ingredients by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.read_ahead import announce_checkpoint
from soupcli.errors import UsageError
from soupcli.metrics.table import metric_named
from soupcli.mixing.mixture import Mixture
from soupcli.report.scores import Judged
from soupcli.run.suspicions import say_suspicions
from soupcli.run.words.resolve import takes_objective
from soupcli.soups.objective import Kind, Objective, judged, judging, scaled
from soupcli.soups.ranking import Ranked, sorted_by_score

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.progress import Progress
    from soupcli.run.run import Run

ROUNDED = 1e-9  # a metric that is at most 1 may be rounded to more


class Choice(NamedTuple):
    """How a soup is chosen: the deciding evaluation, the ingredients ranked by it, and their scores by set."""

    evaluate: Evaluate
    ranking: list[Ranked]
    alone: Mapping[Checkpoint, dict[str, Score]]
    objective: Objective | None = None


def chosen_by(run: Run, candidates: Sequence[Checkpoint], progress: Progress) -> Choice:
    """Evaluate each of `candidates` by itself on the selecting sets, and rank them by objective or first set."""
    evaluators, sets = run.evaluators, run.resolved.selecting_sets
    if not uses_objective(run):
        ranking = run.ranking(progress, candidates)
        say_suspicions(run, [(one, {run.selecting: score}) for one, score in ranking])  # before a search goes by them
        return Choice(evaluators.on(run.selecting), ranking, {c: {run.selecting: score} for c, score in ranking})
    alone: dict[Checkpoint, dict[str, Score]] = {}
    on = {name: evaluators.on(name) for name in sets}
    with evaluators.expecting([Mixture.uniform([one]) for one in candidates]):
        for done, one in enumerate(candidates, 1):
            if done < len(candidates):
                announce_checkpoint(candidates[done])
            alone[one] = {name: on[name](Mixture.uniform([one])) for name in sets}
            told = ", ".join(f"{name} {score.selecting} {score.shown}" for name, score in alone[one].items())
            progress("ranking", done, len(candidates), note=f"{one.path}: {told}")
    say_suspicions(run, list(alone.items()))
    return choice_of(run, alone)


def uses_objective(run: Run) -> bool:
    """Whether the command selects by an objective instead of the first set."""
    return run.recipe.objective is not None and takes_objective(run.command, run.recipe)


def choice_of(run: Run, alone: Mapping[Checkpoint, dict[str, Score]]) -> Choice:
    """Return the choice by the objective, from the ingredients' scores on the selecting sets."""
    sets = run.resolved.selecting_sets
    on = {name: run.evaluators.on(name) for name in sets}
    limits = {name: _limit(run, name) for name in sets}
    kind: Kind = "worst" if run.recipe.objective == "worst" else "mean"
    objective = scaled(kind, sets, list(alone.values()), limits=limits)
    ranking = sorted_by_score(
        [
            Ranked(one, judged(objective, [goal.gain(scores[goal.name].value) for goal in objective.goals]))
            for one, scores in alone.items()
        ]
    )
    return Choice(judging(objective, on, give_up=run.recipe.early_stop), ranking, alone, objective)


def refuse_objective(run: Run, given: Mapping[str, object]) -> None:
    """Raises UsageError if any of the `given` settings, which work with one selecting set only, has a value."""
    for flag, value in given.items():
        if run.recipe.objective is not None and value:
            raise UsageError(
                f"objective: {flag} goes by the first set alone", hint=f"leave out {flag}, or --set objective=null"
            )


def objective_to_report(choice: Choice, soup: Score | None = None) -> dict[str, Any]:
    """Return the report's key `objective`, or {} without an objective."""
    objective = choice.objective
    if objective is None:
        return {}
    total = sum(goal.weight for goal in objective.goals)
    return {
        "objective": Judged(
            kind=objective.kind,
            weights={goal.name: goal.weight / total for goal in objective.goals},
            scaled_to={goal.name: goal.best for goal in objective.goals},
            ingredients={str(one.path): score.value for one, score in choice.ranking},
            soup=soup.value if soup is not None else None,
        )
    }


def _limit(run: Run, name: str) -> float | None:
    """Return the best score that the metric allows on a set, or None if unknown, as for the user's own programs."""
    if not run.sets[name].shows_examples:
        return None
    metric = metric_named(run.evaluators.metric_of(name))
    if not metric.higher_is_better:
        return -ROUNDED
    return None if metric.span is None else 1 + ROUNDED
