"""Evaluators of a recipe given as plain data, as a command makes them: a store and hashes in folders of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soupcli.checkpoints.hashes import ContentHashes
from soupcli.checkpoints.open import open_checkpoint
from soupcli.evaluation.context import EvaluationContext
from soupcli.evaluation.evaluators import Evaluators
from soupcli.evaluation.kept_scores import ScoreStore
from soupcli.evaluation.score import Score
from soupcli.mixing.mixture import Mixture
from soupcli.networks.device import CPU
from soupcli.recipe.recipe import Recipe


def evaluators(recipe: dict[str, Any], first: Path, *, cache: Path | None = None) -> Evaluators:
    """The evaluators of all sets of `recipe`; paths in it are as the working folder sees them."""
    whole = Recipe.model_validate(recipe)
    cache = cache or first.resolve().parent / ".cache"
    return Evaluators(
        EvaluationContext(
            recipe=whole,
            sets=whole.val,
            device=CPU,
            first=open_checkpoint(first),
            hashes=ContentHashes(cache / "hashes"),
            store=ScoreStore(cache / "scores"),
        )
    )


def score(recipe: dict[str, Any], *checkpoints: Path, name: str = "val", cache: Path | None = None) -> Score:
    """The score on the set `name` of the mean of the checkpoints."""
    found = evaluators(recipe, checkpoints[0], cache=cache)
    return found.on(name)(Mixture.uniform([open_checkpoint(path) for path in checkpoints]))
