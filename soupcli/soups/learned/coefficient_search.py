"""Mixing coefficients for any metric, without a gradient: CMA-ES over the simplex (Hansen 2016, arXiv:1604.00772).

The coefficients of a layer are the softmax of the logarithm of its start plus x, for any x that sums to 0. The search
draws a generation of x around a mean, evaluates the mixtures, and moves mean, spread and covariance to the better ones.

x, mean, C ← 0, 0, identity
until `budget` mixtures are evaluated:
    draw a generation of x ~ N(mean, σ² C), evaluate the mixture of each
    mean, σ, C ← as the better half of them says

Letters in names: l layers, k ingredients, f free numbers of a layer (k - 1).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from soupcli.environment import import_extra
from soupcli.late import torch
from soupcli.progress import Progress, silent
from soupcli.soups.decision import check_number
from soupcli.soups.greedy import Foresee, unforeseen
from soupcli.soups.learned.learned import summing_to_one

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.soups.learned.choice import States

WORST = 1e300  # what a loss that is not a number, or infinite, counts as
LEAST = 0.05  # of an even share: what an ingredient that the start leaves out begins with


class Sampler(Protocol):
    """Draws points and learns from their losses: see Evolution."""

    @property
    def population(self) -> int:
        """The number of points in a generation."""

    def ask(self) -> list[list[float]]:
        """Draw the points of the next generation."""

    def tell(self, points: Sequence[Sequence[float]], losses: Sequence[float]) -> None:
        """Learn from the losses of a generation's points."""

    @property
    def is_done(self) -> bool:
        """Whether further points would hardly differ."""


class Generation(NamedTuple):
    """A generation's result: mixtures evaluated so far, best value so far, and its own best and mean value."""

    evaluations: int
    best_so_far: float
    best: float
    mean: float


class FoundCoefficients(NamedTuple):
    """The best mixture of all that were tried. `alpha_lk` is None if that is the rival."""

    alpha_lk: Tensor | None
    mixture: Mixture
    score: Score
    start: Score
    generations: list[Generation]
    evaluations: int
    is_done: bool  # whether the search ended before its budget did


class ScoredMixture(NamedTuple):
    """A mixture and its score. `alpha_lk` is None for the best ingredient."""

    alpha_lk: Tensor | None
    mixture: Mixture
    score: Score


class Judge(NamedTuple):
    """The functions that make a mixture of coefficients and evaluate it. `guarded` refuses one that breaks a gate.

    `foresee` gets the mixtures of a generation, which may be evaluated side by side.
    """

    mixture_of: Callable[[Tensor], Mixture]
    evaluate: Evaluate
    guarded: Evaluate
    foresee: Foresee = unforeseen

    def better(self, best: ScoredMixture, other: ScoredMixture) -> ScoredMixture:
        """Return the other mixture if it is better and no gate refuses it, else this one."""
        if not other.score.goodness > best.score.goodness:
            return best
        return other if self.guarded(other.mixture, at_least=other.score.goodness).refused is None else best


def search_coefficients(
    start_lk: Tensor,
    judge: Judge,
    sampler: Sampler,
    *,
    budget: int,
    rival: ScoredMixture,
    states: States | None = None,
    progress: Progress = silent,
) -> FoundCoefficients:
    """Return the best of the start, the rival, and the mixtures of the search; the first of equally good ones.

    `budget` includes the start. A better mixture that a gate refuses is not taken. `states` keeps every generation, so
    an interrupted search goes on after the last one. Raises ValidationError if neither the start's score nor the
    rival's is a number.
    """
    first = judge.mixture_of(start_lk)
    best = ScoredMixture(start_lk, first, judge.evaluate(first))
    start = best.score
    best = judge.better(best, rival)
    check_number(best.score, str(rival.mixture.members[0].path))
    kept = _kept(states, sampler, start_lk)
    done, generations, history = 1, list[Generation](), list[Any]()
    while done < budget and not sampler.is_done:
        points = sampler.ask()
        known = kept[len(history)] if len(history) < len(kept) else None
        if known is not None and not _are_near(known[0], points):
            kept, known = [], None  # another version drew others
        points = known[0] if known is not None else points
        tried = [coefficients(start_lk, point) for point in points[: budget - done]]
        values, best = _evaluated(tried, known[1] if known is not None else None, judge, best)
        done += len(tried)
        generations.append(_generation(done, best.score, values, start))
        progress("search", done, budget, note=_note(generations[-1], start))
        if len(tried) == len(points):
            sampler.tell(points, [-value for value in values])
            history.append([points, values])
            if states is not None and known is None:
                states.put({"generations": history})
    return FoundCoefficients(best.alpha_lk, best.mixture, best.score, start, generations, done, sampler.is_done)


def coefficients(start_lk: Tensor, point: Sequence[float]) -> Tensor:
    """Return the coefficients of a point, float64 [l, k]. The origin gives the start."""
    layers, members = start_lk.shape
    least = LEAST / members
    free_lf = torch.tensor(point, dtype=torch.float64).reshape(layers, members - 1)
    logits_lk = start_lk.clamp(min=least).log() + free_lf @ basis(members)
    return summing_to_one(torch.softmax(logits_lk, dim=1))


def basis(members: int) -> Tensor:
    """Return orthonormal directions that sum to 0, float64 [k - 1, k] (Helmert's)."""
    rows = torch.zeros(members - 1, members, dtype=torch.float64)
    for row in range(members - 1):
        rows[row, : row + 1] = 1.0
        rows[row, row + 1] = -(row + 1.0)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / norms


def _evaluated(
    tried: Sequence[Tensor], known: Sequence[float] | None, judge: Judge, best: ScoredMixture
) -> tuple[list[float], ScoredMixture]:
    """Return the goodness of each, and the best mixture so far. With `known`, evaluates only better ones."""
    mixtures = [judge.mixture_of(alpha_lk) for alpha_lk in tried]
    values: list[float] = []
    with judge.foresee(iter(mixtures if known is None else [])):
        for number, (alpha_lk, mixture) in enumerate(zip(tried, mixtures, strict=True)):
            if known is not None and not known[number] > best.score.goodness:
                values.append(known[number])
                continue
            score = judge.evaluate(mixture)
            values.append(max(score.goodness, -WORST))
            best = judge.better(best, ScoredMixture(alpha_lk, mixture, score))
    return values, best


def _generation(done: int, best: Score, values: Sequence[float], start: Score) -> Generation:
    sign = 1.0 if start.higher_is_better else -1.0
    finite = [value for value in values if value > -WORST]
    mean = math.fsum(finite) / len(finite) if finite else math.nan
    return Generation(done, best.value, sign * max(finite, default=math.nan), sign * mean)


def _note(found: Generation, start: Score) -> str:
    return f"{start.selecting} {found.best:.4f} of {found.evaluations} mixtures, best {found.best_so_far:.4f}"


def _are_near(points: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> bool:
    """Whether two draws are equal up to last digits, which depend on the machine's linear algebra."""
    return len(points) == len(others) and all(
        len(one) == len(other)
        and all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in zip(one, other, strict=True))
        for one, other in zip(points, others, strict=True)
    )


def _kept(states: States | None, sampler: Sampler, start_lk: Tensor) -> list[Any]:
    """Return the generations of an interrupted search, or nothing if they are damaged."""
    state = states.get() if states is not None else None
    generations = state.get("generations") if isinstance(state, dict) else None
    free = start_lk.shape[0] * (start_lk.shape[1] - 1)
    if not isinstance(generations, list) or not all(
        _is_generation(one, sampler.population, free) for one in generations
    ):
        return []
    return generations


def _is_generation(one: Any, population: int, free: int) -> bool:
    if not isinstance(one, list) or len(one) != 2 or not all(isinstance(part, list) for part in one):
        return False
    points, values = one
    numbers = all(isinstance(point, list) and len(point) == free and all(map(_is_number, point)) for point in points)
    return numbers and len(points) == len(values) == population and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


EXTRA = "search"
SIGMA = 1.0  # of a first draw: coefficients that differ by a factor of e are one step apart
FULL = 200  # free numbers up to which the covariance is whole: its decomposition takes their third power


class Evolution:
    """CMA-ES, from the package cmaes (extra `search`): full covariance, or only its diagonal if that is too large.

    It draws generations of points and learns from their losses. The same seed and losses give the same points.
    """

    def __init__(self, *, free: int, seed: int) -> None:
        cmaes, self._numpy = import_extra("cmaes", extra=EXTRA), import_extra("numpy", extra=EXTRA)
        self.version = f"cmaes {cmaes.__version__}"
        self.algorithm: Literal["CMA-ES", "sep-CMA-ES"] = "CMA-ES" if free <= FULL else "sep-CMA-ES"
        kind = cmaes.CMA if free <= FULL else cmaes.SepCMA
        self._cma: Any = kind(mean=self._numpy.zeros(free), sigma=SIGMA, seed=seed)

    @property
    def population(self) -> int:
        """The number of points in a generation: 4 + 3 ln(free)."""
        return int(self._cma.population_size)

    def ask(self) -> list[list[float]]:
        """Draw the points of the next generation."""
        return [[float(number) for number in self._cma.ask()] for _ in range(self.population)]

    def tell(self, points: Sequence[Sequence[float]], losses: Sequence[float]) -> None:
        """Learn from the losses of a generation's points, all finite."""
        pairs = [(self._numpy.array(point), loss) for point, loss in zip(points, losses, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of equal losses, which steps of an accuracy often are
            self._cma.tell(pairs)

    @property
    def is_done(self) -> bool:
        """Whether the spread of further points is too small to matter, or all recent losses are the same."""
        return bool(self._cma.should_stop())
