"""`soup uniform --ckpts P... [--val V...]`: the mean of all; needs no model and no validation set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options import SoupOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.run.make_soup import Cooked
    from soupcli.run.run import Session


def uniform(options: SoupOptions, invocation: Invocation) -> int:
    """Average all checkpoints; needs no model and no validation set."""
    from soupcli.run.dry_run import Plan, show_plan
    from soupcli.run.gates import check_gates, needs_best
    from soupcli.run.make_soup import reserved, serve
    from soupcli.run.run import Session
    from soupcli.soups.weighted import uniform as mean_of_all

    with Session("uniform", options, invocation) as session:
        session.check_mixable()
        mixture = mean_of_all(session.sharing(session.checkpoints[0]), dtype=session.output_dtype)
        if options.dry_run:
            ranked = len(session.checkpoints) + len(session.sets) - 1 if needs_best(session) else 0
            return show_plan(session, Plan(len(session.sets) + ranked, mixture))
        with reserved(session, options):
            check_gates(session)
            session.hashes.start(session.checkpoints)
            return serve(session, options, _cook(session, mixture))


def _cook(session: Session, mixture: Mixture) -> Cooked:
    """The scores of the mean; of the ingredients too, where a gate asks for the best of them."""
    from soupcli.mixing.mixture import Mixture
    from soupcli.run.gates import needs_best
    from soupcli.run.make_soup import Cooked
    from soupcli.run.run import Row

    rows = [Row("uniform soup", mixture)]
    ingredients: list[tuple[Checkpoint, dict[str, Score]]] = [(member, {}) for member in session.checkpoints]
    if needs_best(session):
        selecting = session.selecting
        with session.phase("rank") as progress:
            ranking = session.ranking(progress)
        ingredients = [(ranked.checkpoint, {selecting: ranked.score}) for ranked in ranking]
        rows.append(Row("best ingredient", Mixture.uniform([ranking[0].checkpoint]), ingredients[0][1]))
    with session.phase("evaluate"):
        scores, *best = session.scores(rows)
    return Cooked(mixture, scores, ingredients, (ingredients[0][0], best[0]) if best else None)
