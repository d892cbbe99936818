"""The weights of `--decay` for the checkpoints of one run: a shape, a moving average, or multipliers in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.window import positions
from soupcli.errors import UsageError
from soupcli.files.small_file import read_small
from soupcli.soups.decay import SHAPES, decay_weights, ema_multipliers, multipliers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint

MAX_BYTES = 1_000_000  # of a file of multipliers


def decayed(ingredients: Sequence[Checkpoint], shape: str | None) -> list[float] | None:
    """Return the weights of --decay for ingredients in the order of their steps, or None without --decay."""
    if shape is None:
        return None
    if shape in SHAPES:
        return decay_weights(multipliers(shape, positions(ingredients)))
    if shape.startswith("ema:"):
        return decay_weights(ema_multipliers(float(shape.removeprefix("ema:")), len(ingredients) - 1))
    return decay_weights(_multipliers_in(Path(shape), len(ingredients) - 1))


def _multipliers_in(file: Path, intervals: int) -> list[float]:
    """Read multipliers from a file, one a line. Raises UsageError unless there is one for each interval."""
    try:
        found = [float(line) for line in read_small(file, most=MAX_BYTES).decode("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as cause:
        raise UsageError(f"--decay {file}: {cause}", hint="one multiplier a line, e.g. 0.75") from cause
    if len(found) != intervals:
        raise UsageError(
            f"--decay {file}: has {len(found)} multipliers, {intervals + 1} checkpoints have {intervals} intervals",
            hint="one multiplier a line for each interval, or a shape: linear, 1-sqrt, cosine",
        )
    return found
