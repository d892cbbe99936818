"""CMA-ES, from the package cmaes (extra `search`): full covariance, or only its diagonal if that is too large.

sampler = Evolution(free=11, seed=0)
points = sampler.ask(); sampler.tell(points, losses)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from soupcli.environment import import_extra

EXTRA = "search"
SIGMA = 1.0  # of a first draw: coefficients that differ by a factor of e are one step apart
FULL = 200  # free numbers up to which the covariance is whole: its decomposition takes their third power


class Evolution:
    """Draws generations of points and learns from their losses. The same seed and losses give the same points."""

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
