"""A soup scaled along the way from the base that its ingredients were fine-tuned from: base + s (soup - base).

s = 0 is the base, 1 the soup, and beyond 1 the change of the weights is larger than the soup's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from soupcli.mixing.mixture import Mixture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Score
    from soupcli.soups.learned.learned import Layered

Again = Callable[[float, float], "Score"]  # a scale and the least goodness: the score, with its refusal


def scales_tried(scales: Sequence[float]) -> list[float]:
    """Return the scales to try: 1, the soup itself, first, then those nearest to it."""
    return sorted({*scales, 1.0}, key=lambda scale: (abs(scale - 1.0), scale))


def stretched(soup: Mixture, base: Checkpoint, scale: float) -> Mixture:
    """Return the soup at `scale`, with the base as its last member; at 1 the soup itself.

    Tensors that are not averaged are the soup's.
    """
    if scale == 1:
        return soup
    if scale == 0:
        return Mixture((base,), (1.0,), soup.dtype, soup.kept)
    rows = soup.coefficients and {name: _stretched(row, scale) for name, row in soup.coefficients.items()}
    return Mixture((*soup.members, base), _stretched(soup.weights, scale), soup.dtype, soup.kept, rows)


def stretched_layers(soup: Layered, base: Checkpoint, scale: float) -> Layered:
    """Return a soup whose layers have their own coefficients at `scale`."""
    if scale == 1:
        return soup
    rows = [list(_stretched(row, scale)) for row in soup.alpha_lk]
    return soup._replace(members=[*soup.members, base], alpha_lk=rows)


def best_point(found: Mapping[float, Score], again: Again) -> float:
    """Return the scale with the best score. The first one tried is the soup's.

    A later one is taken only if it is better, and if `again`, which checks gates, does not refuse it.
    """
    best, *others = found
    for scale in others:
        if found[scale].goodness > found[best].goodness:
            least = found[scale].goodness
            if again(scale, least).refused is None:
                best = scale
    return best


def _stretched(weights: Sequence[float], scale: float) -> tuple[float, ...]:
    return (*(scale * weight for weight in weights), 1.0 - scale)
