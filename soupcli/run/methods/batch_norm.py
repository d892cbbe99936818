"""Evaluates the finished soup with batch-norm statistics made the other way: averaged, or estimated from inputs.

The statistics of a mean of networks are not the mean of their statistics, so both are evaluated, and the result says
which of them is better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.report.soups import OtherStatistics
from soupcli.run.to_report import scores_to_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.mixing.mixture import Mixture
    from soupcli.run.run import Run


def other_evaluations(run: Run) -> int:
    """Return the most evaluations that `other_statistics` takes."""
    return len(_sets(run)) if len(run.checkpoints) > 1 and has_statistics(run.checkpoints) else 0


def has_statistics(checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether the networks keep running statistics, by the names of their tensors."""
    return any(name.endswith("running_mean") for name in checkpoints[0].tensors)


def other_statistics(run: Run, soup: Mixture) -> OtherStatistics | None:
    """Return the soup's scores with statistics made in the way that the recipe does not ask for, or None."""
    sets = _sets(run)
    if not sets or soup.is_one_network or not has_statistics(soup.members):
        return None
    averaged = run.recipe.batch_norm == "average"
    evaluators = run.evaluators_by(run.recipe.model_copy(update={"batch_norm": "keep" if averaged else "average"}))
    try:
        scores = {name: evaluators.on(name)(soup) for name in sets}
    finally:
        evaluators.close()
    return OtherStatistics(kind="estimated again" if averaged else "averaged", scores=scores_to_report(scores))


def recalibration_advice(run: Run, soup: Mixture) -> list[str]:
    """Return a warning if a search has left out every mean with averaged statistics, which may be why.

    A search evaluates no mean with other statistics: that would double its cost.
    """
    several = run.resolved.selects and len(run.checkpoints) > 1 and soup.is_one_network
    if not several or run.recipe.batch_norm != "average" or not has_statistics(soup.members):
        return []
    needs = "" if _sets(run) else ", from a set of images, text or arrays"
    return [
        "no mean was better than one ingredient, and averaged batch-norm statistics may be why: --recalibrate "
        f"estimates them again for each mean{needs}"
    ]


def _sets(run: Run) -> list[str]:
    """Return the sets to compare on, or nothing if no set has inputs to estimate from."""
    if not any(spec.labelled for spec in run.sets.values()):
        return []
    return [name for name, spec in run.sets.items() if spec.shows_examples]
