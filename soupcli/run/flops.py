"""The operations of a forward pass, for the report: of one network, and of the ensembles that a soup stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.report.comparisons import Flops

if TYPE_CHECKING:
    from soupcli.run.run import Run


def flops_to_report(run: Run, *, ingredients: int, members: int | None = None) -> Flops | None:
    """The FLOPs of one forward pass, and of ensembles of `ingredients` and of the soup's `members`.

    Returns None if they were not requested. The recipe's `cost.flops` is ignored for a soup made without a set.
    Raises ValidationError if no set has examples that go through the network one by one.
    """
    settings = run.recipe.cost
    if not settings.flops or not (run.sets or run.options.flops):
        return None
    with run.phase("count"):
        name, forward = run.evaluators.flops()
    return Flops(
        set=name,
        forward=forward,
        ingredients=ingredients,
        ensemble=forward * ingredients,
        ensemble_of_members=forward * members if members is not None else None,
        beside=dict(settings.beside),
    )
