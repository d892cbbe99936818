"""`soup greedy --ckpts P... --val V`: Recipe 1 of the paper over the ranking on the first set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import SoupOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.report import Step
    from soupcli.soups.greedy import Step as Decision


@dataclass(frozen=True, kw_only=True)
class GreedyOptions(SoupOptions):
    """Options of `soup greedy`."""

    min_delta: Annotated[
        float | None,
        typer.Option("--min-delta", help="Margin by which a candidate must raise the score.", envvar="SOUP_MIN_DELTA"),
    ] = None
    with_uniform: Annotated[
        bool, typer.Option("--with-uniform", help="Report the mean of all ingredients beside the soup.")
    ] = False


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "greedy", examples="soup greedy --ckpts runs/*/ --val imagenet-val imagenet-v2")(greedy)


def greedy(options: GreedyOptions, invocation: Invocation) -> int:
    """Add checkpoints, best first, as long as the mean does not get worse."""
    from soupcli.checkpoints.mixing import Mixture
    from soupcli.checkpoints.writing import check_free
    from soupcli.cli.cooking import Cooked, serve
    from soupcli.cli.plan import Plan, show_plan
    from soupcli.cli.session import Session
    from soupcli.soups.greedy import greedy as recipe_1
    from soupcli.soups.ranking import rank

    with Session("greedy", options, invocation) as session:
        selecting, settings = session.selecting, session.recipe.greedy
        session.check_mixable()
        if options.dry_run:
            others = (len(session.sets) - 1) * (3 if options.with_uniform else 2) + int(options.with_uniform)
            mixture = session.average()(session.checkpoints)
            return show_plan(session, Plan(2 * len(session.checkpoints) - 1 + others, mixture))
        check_free(session.recipe.out, force=options.force)
        evaluate = session.evaluators.on(selecting)
        with session.phase("rank") as progress:
            ranking = rank(session.checkpoints, evaluate, progress=progress)
        best = ranking[0].checkpoint
        with session.phase("greedy") as progress:
            soup = recipe_1(
                ranking,
                evaluate,
                accept=settings.accept,
                min_delta=settings.min_delta,
                average=session.average(best),
                progress=progress,
            )
        with session.phase("evaluate"):
            scores = session.evaluators.on_all(soup.mixture)
            best_scores = session.evaluators.on_all(Mixture.uniform([best]))
            uniform = (
                session.evaluators.on_all(session.average(best)(session.checkpoints)) if options.with_uniform else None
            )
        ingredients = [(ranked.checkpoint, {selecting: ranked.score}) for ranked in ranking]
        cooked = Cooked(soup.mixture, scores, ingredients, (best, best_scores), uniform, _reported(soup.steps))
        return serve(session, options, cooked)


def _reported(steps: Sequence[Decision]) -> list[Step]:
    from soupcli.report import Step

    return [
        Step(
            candidate=str(step.candidate.path),
            score=step.score,
            threshold=step.threshold,
            accepted=step.accepted,
            reason=step.reason,
            examples=step.examples,
            seconds=round(step.seconds, 3),
        )
        for step in steps
    ]
