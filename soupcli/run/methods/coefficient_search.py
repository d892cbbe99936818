"""`soup learned --by search`: coefficients for any metric and any kind of set, by CMA-ES over the simplex."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.checkpoints.groups import members_of
from soupcli.environment import cache_folder
from soupcli.errors import UsageError
from soupcli.evaluation.kept_scores import SEARCH_SCHEMA, FitStore
from soupcli.evaluation.paired_difference import difference
from soupcli.late import torch
from soupcli.metrics.metric import Z
from soupcli.mixing.mixture import Mixture
from soupcli.report.soups import CoefficientSearch, SearchGeneration
from soupcli.run.dry_run import Plan
from soupcli.run.gates import Gatekeeper, check_gates, gated_evaluations
from soupcli.run.make_soup import FinishedSoup, Prepared
from soupcli.run.methods.layers import in_groups, mixed_layers
from soupcli.run.methods.objective import chosen_by, objective_to_report
from soupcli.run.methods.scale import check_scale, scale_evaluations, scaled_layers, scaled_soup
from soupcli.run.methods.windows import all_at_once
from soupcli.run.run import Row
from soupcli.run.to_report import coefficients_to_report
from soupcli.soups.greedy import GreedySoup
from soupcli.soups.greedy import greedy as recipe_1
from soupcli.soups.learned.choice import SURE
from soupcli.soups.learned.coefficient_search import (
    SIGMA,
    Evolution,
    FoundCoefficients,
    Judge,
    ScoredMixture,
    search_coefficients,
)
from soupcli.soups.learned.learned import Layered, of_checkpoints, without_absent
from soupcli.wording import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate
    from soupcli.run.methods.objective import Choice
    from soupcli.run.run import Run
    from soupcli.soups.learned.coefficient_search import Sampler
    from soupcli.soups.ranking import Ranked

BUDGET = 100  # mixtures, by default


def prepare_search(run: Run, *, with_uniform: bool) -> Prepared:
    """Check that there is something to search for. See run/make_soup.py."""
    run.require_sets()
    if len(run.checkpoints) < 2:
        raise UsageError(
            f"--by search: one ingredient ({run.checkpoints[0].path}) has no coefficients to search for",
            hint="name further checkpoints: --ckpts runs/*/",
        )
    Evolution(free=1, seed=0)  # says now if its package is missing
    check_scale(run)
    return Prepared(lambda: _plan(run, with_uniform=with_uniform), lambda: _finish(run, with_uniform=with_uniform))


def start_members(run: Run, ranking: Sequence[Ranked], evaluate: Evaluate) -> Sequence[Checkpoint]:
    """Return the ingredients whose mean is the start of `soup learned`."""
    everyone = run.sharing(ranking[0].checkpoint)
    if run.recipe.learned.start == "uniform":
        return everyone
    settings, average = run.recipe.greedy, run.average(ranking[0].checkpoint)
    with run.phase("greedy") as progress:
        accept, min_delta = settings.accept, settings.min_delta
        soup = recipe_1(ranking, evaluate, accept=accept, min_delta=min_delta, average=average, progress=progress)
    kept = {one.path for one in soup.mixture.members}
    return [one for one in everyone if members_of(one)[0].path in kept]


def _plan(run: Run, *, with_uniform: bool) -> Plan:
    number, chosen_on = len(run.checkpoints), len(run.resolved.selecting_sets)
    ranked = number if run.recipe.learned.start == "uniform" else 2 * number - 1
    tried = _budget(run) + scale_evaluations(run)
    others = (len(run.sets) - chosen_on) * (3 if with_uniform else 2) + chosen_on * with_uniform
    return Plan(chosen_on * (ranked + tried) + others + gated_evaluations(run, tried), run.average()(run.checkpoints))


def _budget(run: Run) -> int:
    return run.recipe.learned.budget or BUDGET


def _finish(run: Run, *, with_uniform: bool) -> FinishedSoup:
    """Rank, search, then score the soup on the sets that do not select."""
    check_gates(run)
    with run.phase("rank") as progress:
        choice = chosen_by(run, run.checkpoints, progress)
    best = choice.ranking[0].checkpoint
    alone = Mixture.uniform([best])
    keeper = Gatekeeper(run, alone, choice.alone[best])
    layers = _layers(run, best)
    found, report = _searched(run, choice, layers, keeper)
    soup = _scaled(run, found, layers, choice, keeper)
    rows = [
        Row("learned soup", soup.mixture, keeper.known(soup.mixture)),
        Row("best ingredient", alone, keeper.best),
        *([Row("uniform soup", run.average(best)(run.checkpoints))] if with_uniform else []),
    ]
    with run.phase("evaluate"):
        scores, of_best, *uniform = run.scores(rows)
    return soup._replace(
        scores=scores,
        ingredients=[(ranked.checkpoint, choice.alone[ranked.checkpoint]) for ranked in choice.ranking],
        best=(best, of_best),
        uniform=next(iter(uniform), None),
        parts={**soup.parts, "coefficient_search": report},
    )


def _layers(run: Run, checkpoint: Checkpoint) -> dict[str, list[str]]:
    settings = run.recipe.learned
    layers = mixed_layers(run, checkpoint, settings.per)
    return layers if settings.groups is None else in_groups(layers, settings.groups)


def _layered(members: Sequence[Checkpoint], layers: Mapping[str, list[str]], alpha_lk: Tensor) -> Layered:
    present, rows = without_absent(members, alpha_lk)
    return of_checkpoints(Layered(present, rows, list(layers), list(layers.values()), {}))


def _searched(
    run: Run, choice: Choice, layers: Mapping[str, list[str]], keeper: Gatekeeper
) -> tuple[FoundCoefficients, CoefficientSearch]:
    """Return the best coefficients, and the report's part on the search."""
    best, settings = choice.ranking[0], run.recipe.learned
    members, start = run.sharing(best.checkpoint), start_members(run, choice.ranking, choice.evaluate)
    start_k = torch.tensor([float(one in start) / len(start) for one in members], dtype=torch.float64)
    evolution = Evolution(free=len(layers) * (len(members) - 1), seed=settings.seed)

    def mixture_of(alpha_lk: Tensor) -> Mixture:
        return _layered(members, layers, alpha_lk).mixture(dtype=run.output_dtype, keep_from=best.checkpoint)

    with run.phase("search") as progress:
        found = search_coefficients(
            start_k.repeat(len(layers), 1),
            Judge(mixture_of, choice.evaluate, keeper.guarded(choice.evaluate), all_at_once(run)),
            OfFirst(evolution),
            budget=_budget(run),
            rival=ScoredMixture(None, Mixture.uniform([best.checkpoint]), best.score),
            states=_store(run, best.checkpoint, start, layers, evolution),
            progress=progress,
        )
    if (doubt := maybe_by_chance(found)) is not None:
        run.warn(doubt)
    return found, _to_report(found, run, evolution)


def maybe_by_chance(found: FoundCoefficients) -> str | None:
    """Return a warning if the coefficients are better than the start by less than chance allows, else None."""
    metric, n = found.score.selecting, found.score.metrics[found.score.selecting].n
    gained = difference(found.score, found.start, metric)
    if found.alpha_lk is None or gained.low is None or gained.high is None or gained.value == 0:
        return None
    toward_0 = gained.low if gained.value > 0 else gained.high
    if abs(gained.value) >= abs(gained.value - toward_0) * SURE / Z:
        return None
    return (
        f"{metric} of the coefficients is {shown(metric, found.score.value, None)}, of the start "
        f"{shown(metric, found.start.value, None)}, on {n} examples that chose them, which may be chance: on others "
        "the soup may be worse than its start; a larger set tells"
    )


class OfFirst:
    """A sampler whose draws all processes take from the first one, because linear algebra may differ in last digits."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    @property
    def population(self) -> int:
        """See Sampler.population."""
        return self._sampler.population

    def ask(self) -> list[list[float]]:
        """See Sampler.ask."""
        return processes.from_first(self._sampler.ask)

    def tell(self, points: Sequence[Sequence[float]], losses: Sequence[float]) -> None:
        """See Sampler.tell."""
        if processes.is_first():
            self._sampler.tell(points, losses)

    @property
    def is_done(self) -> bool:
        """See Sampler.is_done."""
        return processes.from_first(lambda: self._sampler.is_done)


def _store(
    run: Run, best: Checkpoint, start: Sequence[Checkpoint], layers: Mapping[str, list[str]], evolution: Evolution
) -> FitStore | None:
    """Return the store of the search's generations, or None if scores on a selecting set cannot be kept."""

    def key() -> str | None:
        mixture = Mixture.uniform(run.sharing(best), keep_from=best)
        more = {
            "search": run.recipe.learned.model_dump(mode="json", exclude={"budget"}),
            "layers": {name: [*tensors] for name, tensors in layers.items()},
            "begin": [run.hashes.of(checkpoint) for checkpoint in start],
            "dtype": str(run.output_dtype),
            "objective": run.recipe.objective,
            "metrics": {name: run.evaluators.metric_of(name) for name in run.resolved.selecting_sets},
            "drawn": [evolution.version, evolution.algorithm, SIGMA],
        }
        return run.evaluators.key_of_search(list(run.resolved.selecting_sets), mixture, more)

    found = processes.from_first(key)
    if found is None:
        return None
    folder = cache_folder() / "fits"
    return FitStore(folder, found, schema=SEARCH_SCHEMA, fresh=run.options.fresh, inputs=run.manifest)


def _scaled(
    run: Run, found: FoundCoefficients, layers: Mapping[str, list[str]], choice: Choice, keeper: Gatekeeper
) -> FinishedSoup:
    """Return the soup after the last step (--scale), with its coefficients and without scores."""
    best = choice.ranking[0].checkpoint
    if found.alpha_lk is None:
        soup = scaled_soup(run, GreedySoup(found.mixture, found.score, []), choice.evaluate, keeper)
        alone = {**soup.parts, **objective_to_report(choice, soup.score)}
        return FinishedSoup(soup.mixture, {}, [], parts=alone, base=soup.base)
    layered = _layered(run.sharing(best), layers, found.alpha_lk)
    scaled = scaled_layers(run, layered, best, choice.evaluate, keeper)
    score = found.score if scaled.score is None else scaled.score
    return FinishedSoup(
        scaled.layered.mixture(dtype=run.output_dtype, keep_from=best),
        {},
        [],
        coefficients=coefficients_to_report(scaled.layered),
        parts={**scaled.parts, **objective_to_report(choice, score)},
        base=scaled.base,
    )


def _to_report(found: FoundCoefficients, run: Run, evolution: Evolution) -> CoefficientSearch:
    settings = run.recipe.learned
    return CoefficientSearch(
        algorithm=evolution.algorithm,
        package=evolution.version,
        seed=settings.seed,
        population=evolution.population,
        budget=_budget(run),
        evaluations=found.evaluations,
        ended_early=found.is_done and found.evaluations < _budget(run),
        start=found.start.value,
        best=found.score.value,
        generations=[
            SearchGeneration(evaluations=one.evaluations, best_so_far=one.best_so_far, best=one.best, mean=one.mean)
            for one in found.generations
        ],
    )
