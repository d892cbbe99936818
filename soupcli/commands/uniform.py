"""`soup uniform --ckpts P... [--val V...]`: the mean of all; needs no model and no validation set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.mixing.mixture import Mixture
from soupcli.run.dry_run import Plan
from soupcli.run.gates import check_gates, needs_best
from soupcli.run.make_soup import FinishedSoup, Prepared, make_soup
from soupcli.run.run import Row
from soupcli.soups.weighted import uniform as mean_of_all

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options import SoupOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.evaluation.score import Score
    from soupcli.run.run import Run


def uniform(options: SoupOptions, invocation: Invocation) -> int:
    """Average all checkpoints; needs no model and no validation set."""
    return make_soup(prepare, options, invocation)


def prepare(run: Run, _options: SoupOptions) -> Prepared:
    """Decides the mean; see run/make_soup.py."""
    mixture = mean_of_all(run.sharing(run.checkpoints[0]), dtype=run.output_dtype)
    ranked = len(run.checkpoints) + len(run.sets) - 1 if needs_best(run) else 0
    return Prepared(lambda: Plan(len(run.sets) + ranked, mixture), lambda: _finish(run, mixture))


def _finish(run: Run, mixture: Mixture) -> FinishedSoup:
    """Score the mean, and the ingredients too if a gate asks for the best of them."""
    check_gates(run)
    run.hashes.start(run.checkpoints)
    rows = [Row("uniform soup", mixture)]
    ingredients: list[tuple[Checkpoint, dict[str, Score]]] = [(member, {}) for member in run.checkpoints]
    if needs_best(run):
        selecting = run.selecting
        with run.phase("rank") as progress:
            ranking = run.ranking(progress)
        ingredients = [(ranked.checkpoint, {selecting: ranked.score}) for ranked in ranking]
        rows.append(Row("best ingredient", Mixture.uniform([ranking[0].checkpoint]), ingredients[0][1]))
    with run.phase("evaluate"):
        scores, *best = run.scores(rows)
    return FinishedSoup(mixture, scores, ingredients, (ingredients[0][0], best[0]) if best else None)
