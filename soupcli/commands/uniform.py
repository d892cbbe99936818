"""`soup uniform --ckpts P... [--val V...]`: the mean of all; needs no model and no validation set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.mixing.mixture import Mixture
from soupcli.run.dry_run import Plan
from soupcli.run.gates import Gatekeeper, check_gates, gated_evaluations, needs_best
from soupcli.run.make_soup import FinishedSoup, Prepared, make_soup
from soupcli.run.methods.scale import ScaledSoup, check_scale, scale_evaluations, scaled_soup
from soupcli.run.run import Row
from soupcli.soups.greedy import GreedySoup
from soupcli.soups.weighted import uniform as mean_of_all

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.soups import ScalableOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.evaluation.score import Score
    from soupcli.run.run import Run


def uniform(options: ScalableOptions, invocation: Invocation) -> int:
    """Average all checkpoints; needs no model and no validation set."""
    return make_soup(prepare, options, invocation)


def prepare(run: Run, _options: ScalableOptions) -> Prepared:
    """Prepare the mean. See run/make_soup.py."""
    mixture = mean_of_all(run.sharing(run.checkpoints[0]), dtype=run.output_dtype)
    check_scale(run)
    ranked = len(run.checkpoints) + len(run.sets) - 1 if needs_best(run) else 0
    if run.resolved.scales:
        ranked += scale_evaluations(run) + gated_evaluations(run, 1 + scale_evaluations(run))
    return Prepared(lambda: Plan(len(run.sets) + ranked, mixture), lambda: _finish(run, mixture))


def _finish(run: Run, mixture: Mixture) -> FinishedSoup:
    """Score the mean, and the ingredients too if a gate asks for the best of them."""
    check_gates(run)
    if run.device.mixing is not None:  # beside the import of torch
        run.hashes.start(run.checkpoints)
    ingredients: list[tuple[Checkpoint, dict[str, Score]]] = [(member, {}) for member in run.checkpoints]
    if needs_best(run):
        selecting = run.selecting
        with run.phase("rank") as progress:
            ranking = run.ranking(progress)
        ingredients = [(ranked.checkpoint, {selecting: ranked.score}) for ranked in ranking]
    best = Mixture.uniform([ingredients[0][0]])
    scaled = _scaled(run, mixture, Gatekeeper(run, best, ingredients[0][1])) if run.resolved.scales else None
    soup = scaled.mixture if scaled is not None else mixture
    rows = [Row("uniform soup", soup)]
    rows += [Row("best ingredient", best, ingredients[0][1])] if needs_best(run) else []
    with run.phase("evaluate"):
        scores, *of_best = run.scores(rows)
    return FinishedSoup(
        soup,
        scores,
        ingredients,
        (ingredients[0][0], of_best[0]) if of_best else None,
        parts=scaled.parts if scaled is not None else {},
        base=scaled.base if scaled is not None else None,
    )


def _scaled(run: Run, mixture: Mixture, keeper: Gatekeeper) -> ScaledSoup:
    """Return the mean at the best scale."""
    evaluate = run.evaluators.on(run.selecting)
    with run.phase("evaluate"):
        score = evaluate(mixture)
    return scaled_soup(run, GreedySoup(mixture, score, []), evaluate, keeper)
