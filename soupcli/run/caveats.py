"""How far the scores of a selected soup can be believed: on what selected it, and on sets that share examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.datasets.load import ExampleSet

if TYPE_CHECKING:
    from soupcli.run.run import Session

SELECTING = ("greedy", "learned")  # commands whose soup depends on the first set


def selects(session: Session) -> bool:
    """Whether the soup of this run depends on the first set."""
    chooses_alpha = session.name == "mix" and len(session.recipe.mix.alpha or ()) > 1
    return session.name in SELECTING or chooses_alpha


def shared_examples(session: Session) -> dict[str, int]:
    """How many examples of each further set are in the selecting one, where there are any."""
    if not selects(session):
        return {}
    first, *others = session.sets
    found = {name: session.evaluators.shared(name, first) for name in others}
    return {name: count for name, count in found.items() if count}


def warnings(session: Session, shared: dict[str, int]) -> list[str]:
    """What should be known before the scores are believed."""
    found = []
    if selects(session) and len(session.sets) == 1:
        name = session.selecting
        holdout = isinstance(session.sets[name], ExampleSet)
        offer = "--holdout 0.5 selects on one half of it and reports the other; or " if holdout else ""
        found.append(
            f"{name} selected this soup, so its score there is flattered, and no other set was given: "
            f"{offer}name a set that takes no part (--val {name} OTHER)"
        )
    for name, count in shared.items():
        examples = "1 example" if count == 1 else f"{count:,} examples"
        found.append(
            f"{name} shares {examples} with {session.selecting}, which selected this soup: its score is flattered too"
        )
    return found
