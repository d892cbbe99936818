"""Checks a report that may come from a stranger: inconsistent parts are refused, and no code that it names is run.

check_soup(report, file)                               # members, weights and coefficients go together
check_trusted(report, recipe, file, trust_code=False)  # raises UsageError if code would have to run
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soupcli.recipe.recipe import Recipe
    from soupcli.report.report import Report
    from soupcli.report.soups import Coefficients, Soup

LARGEST_WEIGHT = 1e9


def check_soup(report: Report, file: Path) -> Soup:
    """Return the soup of the report. Raises UsageError if there is none, or if its parts contradict each other."""
    soup = report.soup
    if soup is None:
        raise UsageError(
            f"{file}: of soup {report.command}, which writes no soup",
            hint="a soup's report is the soup.json in its folder",
        )
    for problem in _problems(soup):
        raise UsageError(f"{file}: not a report of a soup: {problem}")
    return soup


def _problems(soup: Soup) -> Iterator[str]:
    """Yield each contradiction as `key: why`."""
    if not soup.members:
        yield "soup.members: there are none"
    if len(soup.weights) != len(soup.members):
        yield f"soup.weights: {len(soup.weights)} for {len(soup.members)} members"
    if not _are_weights(soup.weights):
        yield f"soup.weights: not all are numbers of at most {LARGEST_WEIGHT:g}"
    for path in (*soup.members, *([soup.kept_from] if soup.kept_from is not None else [])):
        if not path.strip() or "\0" in path:
            yield f"soup.members: {path!r} is no path"
    if soup.coefficients is not None:
        yield from _problems_of(soup.coefficients, soup)


def _problems_of(found: Coefficients, soup: Soup) -> Iterator[str]:
    if found.members != soup.members:
        yield "soup.coefficients.members: others than soup.members"
    if not len(found.layers) == len(found.alpha) == len(found.tensors):
        yield "soup.coefficients: layers, alpha and tensors are not as many"
    if any(len(row) != len(soup.members) or not _are_weights(row) for row in found.alpha):
        yield "soup.coefficients.alpha: a row has not one number for each member"
    if not _are_weights(list(found.scaled.values())):
        yield "soup.coefficients.scaled: not all are numbers"


def _are_weights(weights: Sequence[float]) -> bool:
    return all(math.isfinite(weight) and abs(weight) <= LARGEST_WEIGHT for weight in weights)


def re_estimates(report: Report, recipe: Recipe) -> bool:
    """Whether the soup's batch-norm statistics were re-estimated, which needs the network and a set."""
    return recipe.batch_norm == "recalibrate" and bool(report.sets)


def check_trusted(report: Report, recipe: Recipe, file: Path, *, trust_code: bool) -> None:
    """Raises UsageError if rebuilding the soup would run code that the report names."""
    if re_estimates(report, recipe) and not trust_code:
        model = recipe.model.model_dump(mode="json", exclude_defaults=True) if recipe.model is not None else "auto"
        raise UsageError(
            f"{file}: batch_norm: recalibrate needs the network that the report names: {model}",
            hint="if you wrote the report, or trust who did: --trust-code",
        )


def check_out(out: Path | None, recipe: Recipe, file: Path) -> Path:
    """Return the soup's folder: `out`, or the report's if that is below the working folder or the report's folder.

    Raises UsageError for another place.
    """
    if out is not None:
        return out
    place = Path(os.path.realpath(recipe.out))
    below = [Path(os.path.realpath(folder)) for folder in (Path(), file.parent)]
    if not any(place.is_relative_to(folder) for folder in below):
        raise UsageError(
            f"{file}: its soup lay at {recipe.out}, outside of this folder", hint="--out says where it is to go"
        )
    return recipe.out
