"""`soup learned --ckpts P... --val V`: mixing coefficients fitted on the first set by gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from soupcli.output import console
from soupcli.output.text import describe_curves, draw_curves

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options import LearnedOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.evaluation.kept_scores import FitStore
    from soupcli.networks.learned.residence import Residence
    from soupcli.report.soups import Fit
    from soupcli.run.make_soup import Cooked
    from soupcli.run.run import Session
    from soupcli.soups.learned import Learnt
    from soupcli.soups.learned_fit import Curves
    from soupcli.soups.ranking import Ranked


def learned(options: LearnedOptions, invocation: Invocation) -> int:
    """Fit mixing coefficients by gradient, on labelled examples."""
    from soupcli.run.dry_run import Plan, show_plan
    from soupcli.run.gates import check_gates
    from soupcli.run.make_soup import reserved, serve
    from soupcli.run.run import Session

    with Session("learned", options, invocation) as session:
        session.check_mixable()
        session.evaluators.require_labelled(session.selecting)
        if options.dry_run:
            number, sets = len(session.checkpoints), len(session.sets)
            ranked = number if session.recipe.learned.start == "uniform" else 2 * number - 1
            evaluations = ranked + sets + (sets - 1) + sets * int(options.with_uniform)
            return show_plan(session, Plan(evaluations, session.average()(session.checkpoints)))
        with reserved(session, options):
            check_gates(session)
            return serve(session, options, _cook(session, with_uniform=options.with_uniform))


def _cook(session: Session, *, with_uniform: bool) -> Cooked:
    """Ranking, fit, then the scores on all sets."""
    from soupcli.mixing.mixture import Mixture
    from soupcli.run.make_soup import Cooked
    from soupcli.run.run import Row
    from soupcli.run.to_report import reported_coefficients

    selecting = session.selecting
    with session.phase("rank") as progress:
        ranking = session.ranking(progress)
    best = ranking[0]
    learnt = _learn(session, best.checkpoint, _start(session, ranking))
    mixture = learnt.layered.mixture(dtype=session.output_dtype, keep_from=best.checkpoint)
    rows = [
        Row("learned soup", mixture),
        Row("best ingredient", Mixture.uniform([best.checkpoint]), {selecting: best.score}),
        *([Row("uniform soup", session.average(best.checkpoint)(session.checkpoints))] if with_uniform else []),
    ]
    with session.phase("evaluate"):
        scores, best_scores, *uniform = session.scores(rows)
    return Cooked(
        mixture,
        scores,
        [(ranked.checkpoint, {selecting: ranked.score}) for ranked in ranking],
        (best.checkpoint, best_scores),
        next(iter(uniform), None),
        fit=_reported_fit(learnt),
        coefficients=reported_coefficients(learnt.layered),
    )


def _start(session: Session, ranking: Sequence[Ranked]) -> Sequence[Checkpoint]:
    """The ingredients whose mean the fit begins with."""
    from soupcli.soups.greedy import greedy as recipe_1

    if session.recipe.learned.start == "uniform":
        return session.sharing(ranking[0].checkpoint)
    settings, average = session.recipe.greedy, session.average(ranking[0].checkpoint)
    evaluate = session.evaluators.on(session.selecting)
    with session.phase("greedy") as progress:
        accept, min_delta = settings.accept, settings.min_delta
        soup = recipe_1(ranking, evaluate, accept=accept, min_delta=min_delta, average=average, progress=progress)
    return soup.mixture.members


def _learn(session: Session, best: Checkpoint, start: Sequence[Checkpoint]) -> Learnt:
    """The fit, begun or gone on with."""
    from soupcli.mixing.mixture import Mixture
    from soupcli.soups.learned import learn
    from soupcli.user_code import users_code

    evaluators, settings = session.evaluators, session.recipe.learned
    with session.phase("fit") as progress, users_code():
        task = evaluators.labelled(session.selecting)
        evaluators.live.load(Mixture.uniform([best]))
        learnt = learn(
            evaluators.live,
            session.sharing(best),
            task,
            settings,
            start=start,
            states=_store(session, best, start),
            say_where=lambda residence: _say_where(session, residence),
            watch=_watch(session),
            progress=progress,
        )
    evaluators.examples += learnt.soup.examples
    session.progress.close()
    if not session.options.quiet:
        console.note(draw_curves(_named(learnt.soup.curves)))
    if learnt.soup.warning is not None:
        console.warn(learnt.soup.warning)
    return learnt


def _store(session: Session, best: Checkpoint, start: Sequence[Checkpoint]) -> FitStore:
    """Where the fit is kept, under everything that determines it; where the ingredients live does not."""
    from soupcli import processes
    from soupcli.environment import cache_folder
    from soupcli.evaluation.kept_scores import FitStore
    from soupcli.mixing.mixture import Mixture

    def key() -> str:
        settings = session.recipe.learned.model_dump(mode="json", exclude={"resident", "fold_temperature"})
        mixture = Mixture.uniform(session.sharing(best), keep_from=best)
        begin = [session.hashes.of(checkpoint) for checkpoint in start]
        return session.evaluators.key_of_fit(session.selecting, mixture, {"learned": settings, "begin": begin})

    return FitStore(cache_folder() / "fits", processes.from_first(key), fresh=session.options.fresh)


def _say_where(session: Session, residence: Residence) -> None:
    """The plan: where the ingredients live, what they need and what was free."""
    from soupcli.wording import human_bytes

    if session.options.quiet:
        return
    on_device = "in memory" if session.device.type == "cpu" else f"on {session.device}"
    places = {"device": on_device, "host": "in host memory", "disk": "on disk, read as they are needed"}
    session.progress.close()  # a bar of the comparison before would stay above the line
    sizes = f"{human_bytes(residence.needed)} of them differ, {human_bytes(residence.free)} are free"
    console.note(f"{len(session.checkpoints)} ingredients live {places[residence.where]} ({sizes})")


def _watch(session: Session) -> Callable[[Curves], None]:
    """Draws both curves on a terminal after every round, says their latest values elsewhere."""

    def watch(fit: Curves) -> None:
        show = draw_curves if session.progress.terminal else describe_curves
        total = session.recipe.learned.steps
        session.progress("fitting", min(fit.steps[-1], total), total, note=show(_named(fit)))

    return watch


def _named(fit: Curves) -> dict[str, Sequence[float]]:
    return {"fitted": fit.fitted, "held out": fit.held_out}


def _reported_fit(learnt: Learnt) -> Fit:
    from soupcli.report.soups import Fit

    soup, residence = learnt.soup, learnt.residence
    return Fit(
        beta=soup.beta,
        steps=soup.curves.steps,
        fitted=soup.curves.fitted,
        held_out=soup.curves.held_out,
        kept_step=soup.curves.steps[soup.kept],
        fitted_examples=soup.fitted_examples,
        held_out_examples=soup.held_out_examples,
        resident=residence.where,
        resident_bytes=residence.needed,
        warnings=[soup.warning] if soup.warning is not None else [],
    )
