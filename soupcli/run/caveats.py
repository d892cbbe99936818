"""Warnings about a selected soup: its scores are too high on the set that selected it, and on sets like it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soupcli.run.run import Run


def shared_examples(run: Run) -> dict[str, int]:
    """How many examples of each further set are also in the selecting one. Sets that share none are left out."""
    if not run.resolved.selects:
        return {}
    first, *others = run.sets
    found = {name: run.evaluators.shared(name, first) for name in others}
    return {name: count for name, count in found.items() if count}


def warnings(run: Run, shared: Mapping[str, int]) -> list[str]:
    """What a reader of the scores should know first."""
    found = []
    if run.resolved.selects and len(run.sets) == 1:
        name = run.selecting
        holdout = run.sets[name].shows_examples
        offer = "--holdout 0.5 chooses on one half of it and reports the other; or " if holdout else ""
        found.append(
            f"the soup was chosen on {name}, so its score there is too high, and no other set was given: "
            f"{offer}name a set that takes no part in the choice (--val {name} OTHER)"
        )
    for name, count in shared.items():
        examples = "1 example" if count == 1 else f"{count:,} examples"
        found.append(
            f"{name} shares {examples} with {run.selecting}, which chose this soup: its score is too high as well"
        )
    return found
