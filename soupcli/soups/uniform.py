"""Uniform soup: the mean of all ingredients (section 2 of the paper); needs no validation set."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.mixing import Mixture


def uniform(
    ingredients: Sequence[Checkpoint], *, dtype: torch.dtype | None = None, keep_from: Checkpoint | None = None
) -> Mixture:
    """The mean of all; `keep_from` gives the tensors that are not averaged, None: the first ingredient does."""
    return Mixture.uniform(ingredients, dtype=dtype, keep_from=keep_from)
