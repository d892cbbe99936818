"""`soup greedy --ckpts P... --val V`: Recipe 1 of the paper over the ranking on the first set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import SoupOptions

if TYPE_CHECKING:
    from soupcli.cli.cooking import Cooked
    from soupcli.cli.session import Session


@dataclass(frozen=True, kw_only=True)
class GreedyOptions(SoupOptions):
    """Options of `soup greedy`."""

    min_delta: Annotated[
        float | None,
        typer.Option("--min-delta", help="Margin by which a candidate must raise the score.", envvar="SOUP_MIN_DELTA"),
    ] = None
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", help="forward, pruned, replacement or budgeted.", envvar="SOUP_STRATEGY"),
    ] = None
    orders: Annotated[
        int | None,
        typer.Option(
            "--orders", help="Orders to try: the ranking and random ones; the best soup stays.", envvar="SOUP_ORDERS"
        ),
    ] = None
    budget: Annotated[
        int | None,
        typer.Option("--budget", help="Soups that --strategy budgeted evaluates.", envvar="SOUP_BUDGET"),
    ] = None
    early_stop: Annotated[
        bool | None,
        typer.Option(
            "--early-stop/--no-early-stop",
            help="Give up candidates that are out of reach (default), or evaluate every one to the end.",
            envvar="SOUP_EARLY_STOP",
        ),
    ] = None
    with_uniform: Annotated[
        bool, typer.Option("--with-uniform", help="Report the mean of all ingredients beside the soup.")
    ] = False


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "greedy", examples="soup greedy --ckpts runs/*/ --val imagenet-val imagenet-v2")(greedy)


def greedy(options: GreedyOptions, invocation: Invocation) -> int:
    """Add checkpoints, best first, while the mean gets no worse."""
    from soupcli.cli.cooking import reserved, serve
    from soupcli.cli.gatekeeping import check_gates, gated_evaluations
    from soupcli.cli.plan import Plan, show_plan
    from soupcli.cli.session import Session
    from soupcli.soups.search import most_evaluations

    with Session("greedy", options, invocation) as session:
        session.check_mixable()
        session.require_sets()
        if options.dry_run:
            others = (len(session.sets) - 1) * (3 if options.with_uniform else 2) + int(options.with_uniform)
            mixture = session.average()(session.checkpoints)
            evaluations = most_evaluations(len(session.checkpoints), session.recipe.greedy)
            others += gated_evaluations(session, evaluations - len(session.checkpoints))
            return show_plan(session, Plan(evaluations + others, mixture))
        with reserved(session, options):
            check_gates(session)
            return serve(session, options, _cook(session, with_uniform=options.with_uniform))


def _cook(session: Session, *, with_uniform: bool) -> Cooked:
    """Ranking, Recipe 1, then the scores on the sets that do not select."""
    from soupcli.checkpoints.checkpoint import announce_checkpoint
    from soupcli.checkpoints.mixing import Mixture
    from soupcli.cli.cooking import Cooked
    from soupcli.cli.gatekeeping import Gatekeeper
    from soupcli.cli.session import Row
    from soupcli.soups.ranking import rank
    from soupcli.soups.search import search

    selecting = session.selecting
    evaluate = session.evaluators.on(selecting)
    with session.phase("rank") as progress:
        ranking = rank(session.checkpoints, evaluate, announce=announce_checkpoint, progress=progress)
    best = ranking[0].checkpoint
    average = session.average(best)
    keeper = Gatekeeper(session, Mixture.uniform([best]), ranking[0].score)
    with session.phase("greedy") as progress:
        found = search(
            ranking,
            keeper.guarded(evaluate),
            session.recipe.greedy,
            average=average,
            announce=announce_checkpoint,
            progress=progress,
        )
    soup = found.soup
    rows = [
        Row("greedy soup", soup.mixture, {**keeper.known(soup.mixture), selecting: soup.score}),
        Row("best ingredient", Mixture.uniform([best]), keeper.best),
        *([Row("uniform soup", average(session.checkpoints))] if with_uniform else []),
    ]
    with session.phase("evaluate"):
        scores, best_scores, *uniform = session.scores(rows)
    ingredients = [(ranked.checkpoint, {selecting: ranked.score}) for ranked in ranking]
    return Cooked(soup.mixture, scores, ingredients, (best, best_scores), next(iter(uniform), None), found)
