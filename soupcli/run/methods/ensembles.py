"""Scores ensembles from kept logits, to compare with a soup: of all ingredients, and greedy (the paper's Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.mixing.mixture import Mixture
from soupcli.output import console
from soupcli.report.scores import Ensemble, Scored
from soupcli.run.to_report import scores_to_report
from soupcli.soups.greedy import greedy

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Score
    from soupcli.run.run import Run
    from soupcli.soups.budgeted import Predict
    from soupcli.soups.ranking import Ranked


class EnsembleScores(NamedTuple):
    """Further keys of the report, and the ingredients with their scores on all sets."""

    parts: dict[str, Any]
    ingredients: list[tuple[Checkpoint, dict[str, Score]]]


def predict_from_logits(run: Run) -> Predict | None:
    """Return a function that scores ensembles on the selecting set by its metric, or None if no logits are kept."""
    if run.logits is None:
        return None
    evaluators, selecting = run.evaluators, run.selecting

    def predict(mixtures: Sequence[Mixture]) -> Sequence[Score]:
        with run.phase("predict"):
            metric = evaluators.metric_of(selecting)
            return evaluators.ensembles(selecting, run.checkpoints, [metric]).scores(mixtures)

    return predict


def say_again(run: Run) -> None:
    """Print that scores were known and logits were not: the missing logits cost forward passes."""
    again = run.evaluators.again
    if again and not run.options.quiet:
        console.note(f"{again} known scores were evaluated again: their logits were not in {run.logits}")


def ensembles(run: Run, ranking: Sequence[Ranked]) -> EnsembleScores:
    """Score the ensemble of all, the greedy ensemble (Recipe 1 on outputs) and the second best ingredient.

    Networks whose logits on a set are missing are evaluated there; beyond that there is no forward pass. Sets that
    show no logits are left out.
    """
    evaluators, selecting = run.evaluators, run.selecting
    members = [ranked.checkpoint for ranked in ranking]
    sets = [name for name, spec in run.sets.items() if spec.labelled]
    with run.phase("ensembles"):
        on = {name: evaluators.ensembles(name, members, evaluators.metrics_of(name)) for name in sets}
        settings = run.recipe.greedy
        metric = evaluators.metric_of(selecting)
        chosen = greedy(
            ranking,
            evaluators.ensembles(selecting, members, [metric]),
            accept=settings.accept,
            min_delta=settings.min_delta,
        ).mixture
        every = Mixture.uniform(members)
        scores = [{name: score(mixture) for name, score in on.items()} for mixture in (every, chosen)]
    with run.phase("evaluate"):
        alone = [(member, evaluators.on_all(Mixture.uniform([member]))) for member in members]
    parts: dict[str, Any] = {
        "ensemble": Ensemble(members=_paths(every), scores=scores_to_report(scores[0])),
        "greedy_ensemble": Ensemble(members=_paths(chosen), scores=scores_to_report(scores[1])),
    }
    for second, its_scores in alone[1:2]:
        parts["second_best"] = Scored(path=str(second.path), scores=scores_to_report(its_scores))
    return EnsembleScores(parts, alone)


def _paths(mixture: Mixture) -> list[str]:
    return [str(member.path) for member in mixture.members]
