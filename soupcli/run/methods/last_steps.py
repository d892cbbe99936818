"""The last steps of `soup greedy`, whatever it searched: the soup is scaled, then scored on all sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.mixing.mixture import Mixture
from soupcli.run.make_soup import FinishedSoup
from soupcli.run.methods.objective import objective_to_report
from soupcli.run.methods.scale import scaled_soup
from soupcli.run.run import Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.run.gates import Gatekeeper
    from soupcli.run.methods.objective import Choice
    from soupcli.run.run import Run
    from soupcli.soups.search import SearchResult


class Rival(NamedTuple):
    """The ingredient that the soup is compared with, and what it is called."""

    name: str
    checkpoint: Checkpoint


def finish_search(
    run: Run,
    found: SearchResult,
    choice: Choice,
    keeper: Gatekeeper,
    rival: Rival,
    ingredients: Sequence[Checkpoint],
    *,
    with_uniform: bool,
    parts: Mapping[str, Any] | None = None,
) -> FinishedSoup:
    """Return the soup of a search after its last step (--scale), with its scores and the rival's on every set.

    `ingredients` are in the order of the report, `parts` further keys of it.
    """
    soup = scaled_soup(run, found.soup, choice.evaluate, keeper)
    mean = run.average(rival.checkpoint)
    rows = [
        Row("greedy soup", soup.mixture, {**keeper.known(soup.mixture), **keeper.of_sets(soup.score)}),
        Row(rival.name, Mixture.uniform([rival.checkpoint]), keeper.best),
        *([Row("uniform soup", mean(run.checkpoints))] if with_uniform else []),
    ]
    with run.phase("evaluate"):
        scores, of_rival, *uniform = run.scores(rows)
    return FinishedSoup(
        soup.mixture,
        scores,
        [(one, choice.alone.get(one, {})) for one in ingredients],
        (rival.checkpoint, of_rival),
        next(iter(uniform), None),
        found,
        parts={**soup.parts, **objective_to_report(choice, soup.score), **(parts or {})},
        base=soup.base,
    )
