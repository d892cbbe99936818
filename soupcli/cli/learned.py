"""`soup learned --ckpts P... --val V`: mixing coefficients fitted on the first set by gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from soupcli.cli import console, curves
from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import SoupOptions

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.cooking import Cooked
    from soupcli.cli.session import Session
    from soupcli.networks.residence import Residence
    from soupcli.report.soups import Fit
    from soupcli.soups.layered import Learnt
    from soupcli.soups.learned import Curves
    from soupcli.soups.ranking import Ranked
    from soupcli.validation.fit_store import FitStore


@dataclass(frozen=True, kw_only=True)
class LearnedOptions(SoupOptions):
    """Options of `soup learned`."""

    per: Annotated[
        str | None, typer.Option("--per", help="One coefficient per model, layer or tensor.", envvar="SOUP_PER")
    ] = None
    constraint: Annotated[
        str | None,
        typer.Option("--constraint", help="simplex, or affine: negative coefficients too.", envvar="SOUP_CONSTRAINT"),
    ] = None
    resident: Annotated[
        str | None,
        typer.Option("--resident", help="Where ingredients live: device, host, disk or auto.", envvar="SOUP_RESIDENT"),
    ] = None
    with_uniform: Annotated[
        bool, typer.Option("--with-uniform", help="Report the mean of all ingredients beside the soup.")
    ] = False


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "learned", examples="soup learned --ckpts runs/*/ --val imagenet-val imagenet-v2")(learned)


def learned(options: LearnedOptions, invocation: Invocation) -> int:
    """Fit mixing coefficients by gradient, on labelled examples."""
    from soupcli.cli.cooking import reserved, serve
    from soupcli.cli.gatekeeping import check_gates
    from soupcli.cli.plan import Plan, show_plan
    from soupcli.cli.session import Session

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
    from soupcli.checkpoints.mixing import Mixture
    from soupcli.cli.cooking import Cooked
    from soupcli.cli.searched import reported_coefficients
    from soupcli.cli.session import Row

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
    from soupcli.checkpoints.mixing import Mixture
    from soupcli.python_file import users_code
    from soupcli.soups.layered import learn

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
        console.note(curves.drawn(_named(learnt.soup.curves)))
    if learnt.soup.warning is not None:
        console.warn(learnt.soup.warning)
    return learnt


def _store(session: Session, best: Checkpoint, start: Sequence[Checkpoint]) -> FitStore:
    """Where the fit is kept, under everything that determines it; where the ingredients live does not."""
    from soupcli import processes
    from soupcli.cache_folder import cache_folder
    from soupcli.checkpoints.mixing import Mixture
    from soupcli.validation.fit_store import FitStore

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
        show = curves.drawn if session.progress.terminal else curves.told
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
