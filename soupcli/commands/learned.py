"""`soup learned --ckpts P... --val V`: mixing coefficients fitted on the first set by gradient, or searched for.

soup learned --ckpts P... --val V --by search --budget 200     # any metric, any set: run/methods/coefficient_search.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.environment import cache_folder
from soupcli.evaluation.kept_scores import FitStore
from soupcli.late import torch
from soupcli.mixing.mixture import Mixture
from soupcli.output import console
from soupcli.output.sentences import describe_curves, draw_curves
from soupcli.report.soups import LearnedFit
from soupcli.run.dry_run import Plan
from soupcli.run.gates import Gatekeeper, check_gates, gated_evaluations
from soupcli.run.make_soup import FinishedSoup, Prepared, make_soup
from soupcli.run.methods.coefficient_search import prepare_search, start_members
from soupcli.run.methods.scale import check_scale, scale_evaluations, scaled_layers
from soupcli.run.run import Row
from soupcli.run.to_report import coefficients_to_report
from soupcli.soups.learned.learned import Learnt, learn
from soupcli.user_code.function import users_code
from soupcli.wording import human_bytes

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.soups import LearnedOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.networks.learned.residence import Residence
    from soupcli.run.run import Run
    from soupcli.soups.learned.fit import Curves


def learned(options: LearnedOptions, invocation: Invocation) -> int:
    """Fit mixing coefficients by gradient, on labelled examples, or search for them by any metric."""
    return make_soup(prepare, options, invocation)


def prepare(run: Run, options: LearnedOptions) -> Prepared:
    """Checks that the selecting set has labels, if the fit is by gradient; see run/make_soup.py."""
    if run.recipe.learned.by == "search":
        return prepare_search(run, with_uniform=options.with_uniform)
    run.evaluators.require_labelled(run.selecting)
    check_scale(run)
    with_uniform = options.with_uniform
    return Prepared(lambda: _plan(run, with_uniform=with_uniform), lambda: _finish(run, with_uniform=with_uniform))


def _plan(run: Run, *, with_uniform: bool) -> Plan:
    number, sets = len(run.checkpoints), len(run.sets)
    ranked = number if run.recipe.learned.start == "uniform" else 2 * number - 1
    evaluations = ranked + sets + (sets - 1) + sets * int(with_uniform) + scale_evaluations(run)
    evaluations += gated_evaluations(run, scale_evaluations(run) + 1) if run.resolved.scales else 0
    return Plan(evaluations, run.average()(run.checkpoints))


def _finish(run: Run, *, with_uniform: bool) -> FinishedSoup:
    """Ranking, fit, then the scores on all sets."""
    check_gates(run)
    selecting = run.selecting
    with run.phase("rank") as progress:
        ranking = run.ranking(progress)
    best = ranking[0]
    learnt = _learn(run, best.checkpoint, start_members(run, ranking, run.evaluators.on(selecting)))
    evaluate = run.evaluators.on(selecting)
    keeper = Gatekeeper(run, Mixture.uniform([best.checkpoint]), {selecting: best.score})
    soup = scaled_layers(run, learnt.layered, best.checkpoint, evaluate, keeper)
    mixture = soup.layered.mixture(dtype=run.output_dtype, keep_from=best.checkpoint)
    rows = [
        Row("learned soup", mixture),
        Row("best ingredient", Mixture.uniform([best.checkpoint]), {selecting: best.score}),
        *([Row("uniform soup", run.average(best.checkpoint)(run.checkpoints))] if with_uniform else []),
    ]
    with run.phase("evaluate"):
        scores, best_scores, *uniform = run.scores(rows)
    return FinishedSoup(
        mixture,
        scores,
        [(ranked.checkpoint, {selecting: ranked.score}) for ranked in ranking],
        (best.checkpoint, best_scores),
        next(iter(uniform), None),
        fit=_reported_fit(learnt),
        coefficients=coefficients_to_report(soup.layered),
        parts=soup.parts,
        base=soup.base,
    )


def _learn(run: Run, best: Checkpoint, start: Sequence[Checkpoint]) -> Learnt:
    """The fit, begun or gone on with."""
    evaluators, settings = run.evaluators, run.recipe.learned
    with run.phase("fit") as progress, users_code():
        evaluators.describe_by(best)
        task = evaluators.labelled(run.selecting)
        evaluators.live.load(Mixture.uniform([best]))
        learnt = learn(
            evaluators.live,
            run.sharing(best),
            task,
            settings,
            start=start,
            states=_store(run, best, start),
            say_where=lambda residence: _say_where(run, residence),
            watch=_watch(run),
            progress=progress,
        )
    evaluators.count(learnt.soup.examples)
    run.progress.close()
    if not run.options.quiet:
        console.note(*draw_curves(_named(learnt.soup.curves)).split("\n"))
    if learnt.soup.warning is not None:
        console.warn(learnt.soup.warning)
    return learnt


def _store(run: Run, best: Checkpoint, start: Sequence[Checkpoint]) -> FitStore:
    """The store of kept fits, under a key of everything that determines a fit."""

    mixture = Mixture.uniform(run.sharing(best), keep_from=best)

    def key() -> str:
        settings = run.recipe.learned.model_dump(mode="json", exclude={"resident"})
        begin = [run.hashes.of(checkpoint) for checkpoint in start]
        more = {"learned": settings, "begin": begin, "threads": torch.get_num_threads()}
        return run.evaluators.key_of_fit(run.selecting, mixture, more)

    return FitStore(
        cache_folder() / "fits",
        processes.from_first(key),
        fresh=run.options.fresh,
        inputs=run.manifest,
        confirm=lambda: run.evaluators.confirm_read(run.selecting, mixture),
    )


def _say_where(run: Run, residence: Residence) -> None:
    """Say where the ingredients are kept during the fit, how much they need and how much is free."""
    if run.options.quiet:
        return
    on_device = "in memory" if run.device.type == "cpu" else f"on {run.device}"
    places = {"device": on_device, "host": "in host memory", "disk": "on disk"}
    run.progress.close()  # a bar of the comparison before would stay above the line
    sizes = f"{human_bytes(residence.needed)} needed, {human_bytes(residence.free)} free"
    console.note(f"keeping {len(run.checkpoints)} ingredients {places[residence.where]}: {sizes}")


def _watch(run: Run) -> Callable[[Curves], None]:
    """Draws both curves on a terminal after every round, says their latest values elsewhere."""

    def watch(fit: Curves) -> None:
        show = draw_curves if run.progress.terminal else describe_curves
        total = run.recipe.learned.steps
        run.progress("fitting", min(fit.steps[-1], total), total, note=show(_named(fit)))
        run.trackers.fitted(fit.steps[-1], {name: values[-1] for name, values in _named(fit).items()})

    return watch


def _named(fit: Curves) -> dict[str, Sequence[float]]:
    return {"fitted": fit.fitted, "held out": fit.held_out}


def _reported_fit(learnt: Learnt) -> LearnedFit:
    soup, residence = learnt.soup, learnt.residence
    return LearnedFit(
        beta=soup.beta,
        steps=soup.curves.steps,
        fitted=soup.curves.fitted,
        held_out=soup.curves.held_out,
        kept_step=soup.curves.steps[soup.kept],
        fitted_examples=soup.fitted_examples,
        held_out_examples=soup.held_out_examples,
        threads=torch.get_num_threads(),
        folds=soup.folds,
        gain=soup.gain,
        gain_stderr=soup.gain_stderr,
        resident=residence.where,
        resident_bytes=residence.needed,
        warnings=[soup.warning] if soup.warning is not None else [],
    )
