"""What a forward pass costs: the soup's, which is one network's, beside that of an ensemble and of other networks."""

from __future__ import annotations

from soupcli.cli.session import Session
from soupcli.report.comparisons import Flops

UNITS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def counted(session: Session, *, ingredients: int, members: int | None = None) -> Flops | None:
    """The count where it is asked for; a recipe's wish is none of a soup's that is made without any set.

    `members`: of the soup, None where there is none.

    Raises ValidationError where no set is one of examples that go through the network one by one.
    """
    settings = session.recipe.cost
    if not settings.flops or not (session.sets or session.options.flops):
        return None
    with session.phase("count"):
        name, forward = session.evaluators.flops()
    return Flops(
        set=name,
        forward=forward,
        ingredients=ingredients,
        ensemble=forward * ingredients,
        ensemble_of_members=forward * members if members is not None else None,
        beside=dict(settings.beside),
    )


def cost_of(flops: Flops) -> str:
    """The count as a sentence."""
    costs: dict[str, float] = {}
    if flops.ensemble_of_members is not None and flops.ensemble_of_members != flops.ensemble:
        costs["an ensemble of the members"] = flops.ensemble_of_members
    costs |= {f"an ensemble of all {flops.ingredients}": flops.ensemble, **flops.beside}
    beside = ", ".join(f"{name} {_shown(cost)} ({cost / flops.forward:.4g} x)" for name, cost in costs.items())
    return f"forward pass of one example of {flops.set}: {_shown(flops.forward)}; {beside}"


def _shown(flops: float) -> str:
    """E.g. `5.645 TFLOP`."""
    unit, size = next(((unit, size) for unit, size in UNITS if flops >= size), ("", 1.0))
    return f"{flops / size:.4g} {unit}FLOP"
