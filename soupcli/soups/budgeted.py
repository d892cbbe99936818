"""Soups on a budget, RADIN (Menes and Risser-Maroix 2024, arXiv:2401.17790).

To first order around the start a soup's loss is that of the ensemble of its members with averaged logits. So:

candidates ← many soups, drawn by Monte Carlo
sort candidates by ValAcc(ensemble(members)), which takes their saved logits and no forward pass
return the best by ValAcc(average(members)) of the first B candidates
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from soupcli.evaluation.score import Evaluate, Score
from soupcli.late import torch
from soupcli.mixing.mixture import Mixture
from soupcli.progress import Progress, silent
from soupcli.soups.decision import Rule, Step, begin, decide, describe_score
from soupcli.soups.greedy import GreedySoup

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.soups.ranking import Ranked

Predict = Callable[[Sequence[Mixture]], Sequence[Score]]


class Predicted(NamedTuple):
    """A candidate, as the ranks of its members, with the score of their ensemble."""

    ranks: tuple[int, ...]
    score: Score


def budgeted(
    ranking: Sequence[Ranked],
    evaluate: Evaluate,
    predict: Predict,
    *,
    budget: int,
    candidates: int,
    seed: int = 0,
    average: Callable[[Sequence[Checkpoint]], Mixture] = Mixture.uniform,
    progress: Progress = silent,
) -> GreedySoup:
    """Return the best of the best ingredient and the `budget` soups that are predicted to be best.

    `predict` returns the scores of ensembles. At most 1 + `budget` evaluations. Equal predictions are sorted by fewer
    members, then by rank. Raises ValidationError if the best ingredient's score is not a number.
    """
    first = ranking[0].checkpoint
    soup = average([first])
    best, start = begin(soup, evaluate, candidate=first, action="take")
    steps: list[Step] = [start]
    progress("greedy", 0, budget, note=f"{first.path}: {best.selecting} {best.shown}: start")
    drawn = draw(len(ranking), candidates, seed=seed)
    members = [[ranking[rank].checkpoint for rank in ranks] for ranks in drawn]
    scores = predict([Mixture.uniform(some) for some in members])
    order = sorted(map(Predicted, drawn, scores), key=lambda p: (-p.score.goodness, len(p.ranks), p.ranks))
    for done, predicted in enumerate(order[:budget], 1):
        trial = average([ranking[rank].checkpoint for rank in predicted.ranks])
        candidate = ranking[predicted.ranks[0]].checkpoint
        score, step = decide(trial, evaluate, best, Rule(">"), candidate=candidate, action="take")
        steps.append(step)
        if step.accepted:
            best, soup = score, trial
        note = f"{len(trial.members)} members: {describe_score(score)}: {step.reason}"
        progress("greedy", done, min(budget, len(order)), note=note)
    return GreedySoup(soup, best, steps)


def draw(ingredients: int, candidates: int, *, seed: int) -> list[tuple[int, ...]]:
    """Draw sets of at least two ingredients, each once: all sets, or `candidates` random ones.

    The size of a random set is drawn first, then the members, each uniformly.
    """
    if 2**ingredients - 1 - ingredients <= candidates:
        return [some for size in range(2, ingredients + 1) for some in combinations(range(ingredients), size)]
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < candidates:
        size = int(torch.randint(2, ingredients + 1, (), generator=generator))
        drawn[tuple(sorted(torch.randperm(ingredients, generator=generator)[:size].tolist()))] = None
    return list(drawn)
