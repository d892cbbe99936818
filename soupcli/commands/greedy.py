"""`soup greedy --ckpts P... --val V`: Recipe 1 of the paper over the ranking on the first set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.errors import UsageError

if TYPE_CHECKING:
    from soupcli.cli.options import GreedyOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.run.make_soup import Cooked
    from soupcli.run.run import Session
    from soupcli.soups.ranking import Ranked


def greedy(options: GreedyOptions, invocation: Invocation) -> int:
    """Add checkpoints, best first, while the mean gets no worse."""
    from soupcli.run.dry_run import Plan, show_plan
    from soupcli.run.gates import check_gates, gated_evaluations
    from soupcli.run.make_soup import reserved, serve
    from soupcli.run.run import Session
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
        if session.recipe.greedy.strategy == "budgeted" and session.logits is None:
            hint = "soup rank --save-logits DIR, then soup greedy --logits DIR"
            raise UsageError("--strategy budgeted: needs --logits", hint=hint)
        with reserved(session, options):
            check_gates(session)
            return serve(session, options, _cook(session, options))


def _cook(session: Session, options: GreedyOptions) -> Cooked:
    """Ranking, search, then the scores on the sets that do not select."""
    from soupcli.checkpoints.checkpoint import announce_checkpoint
    from soupcli.mixing.mixture import Mixture
    from soupcli.run.ensembles import ensembles, predict_from_logits, say_again
    from soupcli.run.gates import Gatekeeper
    from soupcli.run.make_soup import Cooked
    from soupcli.run.run import Row
    from soupcli.soups.search import search

    selecting = session.selecting
    evaluate = session.evaluators.on(selecting)
    ranking = _ranking(session, options)
    best = ranking[0].checkpoint
    average = session.average(best)
    measured = ranking[0].score if options.scores is None else evaluate(Mixture.uniform([best]))
    keeper = Gatekeeper(session, Mixture.uniform([best]), measured)
    with session.phase("greedy") as progress:
        found = search(
            ranking,
            keeper.guarded(evaluate),
            session.recipe.greedy,
            average=average,
            predict=predict_from_logits(session),
            announce=announce_checkpoint,
            progress=progress,
        )
    soup = found.soup
    rows = [
        Row("greedy soup", soup.mixture, {**keeper.known(soup.mixture), selecting: soup.score}),
        Row("best ingredient", Mixture.uniform([best]), keeper.best),
        *([Row("uniform soup", average(session.checkpoints))] if options.with_uniform else []),
    ]
    with session.phase("evaluate"):
        scores, best_scores, *uniform = session.scores(rows)
    cooked = Cooked(
        soup.mixture,
        scores,
        [(ranked.checkpoint, {selecting: ranked.score}) for ranked in ranking],
        (best, best_scores),
        next(iter(uniform), None),
        found,
        parts={"scores_file": str(options.scores)} if options.scores is not None else {},
    )
    if session.logits is not None:
        beside = ensembles(session, ranking)
        ingredients = [
            (ranked.checkpoint, {**scores, selecting: ranked.score})
            for ranked, (_, scores) in zip(ranking, beside.ingredients, strict=True)
        ]
        parts = {**cooked.parts, **beside.parts}
        cooked = cooked._replace(ingredients=ingredients, beside=beside.rows, parts=parts)
        say_again(session)
    return cooked


def _ranking(session: Session, options: GreedyOptions) -> list[Ranked]:
    """Best first: by what is measured, or by what a file says."""
    from soupcli.datasets.holdout import whole_of
    from soupcli.run.external_scores import published

    selecting, evaluators = session.selecting, session.evaluators
    if options.scores is not None:
        return published(session, options.scores, whole_of(selecting), evaluators.metric_of(selecting))
    with session.phase("rank") as progress:
        return session.ranking(progress)
