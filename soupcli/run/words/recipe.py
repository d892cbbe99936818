"""The recipe of a run: environment, --set and flags laid over soup.yaml, in their order of precedence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.cli.options.soups import LearnedOptions
from soupcli.errors import UsageError
from soupcli.recipe.precedence import load_recipe
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.cli.options.common import RecipeOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.recipe.recipe import Recipe

DEFAULT_RECIPE = Path("soup.yaml")
# Options that stand for a key of the recipe.
RECIPE_KEYS = {
    **{key: key for key in ("device", "dtype", "metric", "batch_size", "workers", "out", "max_shard_size")},
    **{key: key for key in ("format", "keep_state", "merge_adapters", "card", "objective", "scale")},
    **{key: key for key in ("include", "exclude", "take", "base", "key", "adapter_rank", "require_gain", "holdout")},
    **{key: f"greedy.{key}" for key in ("min_delta", "strategy", "orders", "budget", "windows")},
    "window_decay": "greedy.decay",
    "batch_norm": "batch_norm",
    **{key: f"window.{key}" for key in ("prefer", "last", "top", "by", "between", "every", "group_by")},
    "flops": "cost.flops",
    **{key: key for key in ("amp", "channels_last", "compile", "early_stop", "cache_inputs")},
    **{key: f"learned.{key}" for key in ("per", "constraint", "resident")},
    **{key: f"mix.{key}" for key in ("method", "weights", "weights_for", "alpha", "decay", "any_weights")},
}
LEARNED_KEYS = {"found_by": "learned.by", "budget": "learned.budget", "groups": "learned.groups"}


def resolve_recipe(options: RecipeOptions, invocation: Invocation) -> Recipe:
    """The recipe with environment, --set and flags laid over it, in their order of precedence."""
    values = dataclasses.asdict(options)
    keys = RECIPE_KEYS | (LEARNED_KEYS if isinstance(options, LearnedOptions) else {})
    given = {key: values[key] for key in keys if values.get(key) not in (None, [])}
    if "by" in given:
        given |= _told_apart(given.pop("by"), learned=isinstance(options, LearnedOptions))
    if "weights_for" in given:
        given["weights_for"] = _in_pairs(given["weights_for"])
    if values.get("recalibrate"):
        given["batch_norm"] = "recalibrate"
    settings: dict[str, str] = {}
    for word in options.set_ or []:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {word}: expected KEY=VALUE", hint="e.g. --set greedy.min_delta=0.001")
        settings[key] = value
    file = options.recipe
    if file is None and DEFAULT_RECIPE.is_file():
        file = DEFAULT_RECIPE
    recipe = load_recipe(
        file,
        variables={keys[key]: given[key] for key in given if key in invocation.from_environment},
        settings=settings,
        flags={keys[key]: given[key] for key in given if key not in invocation.from_environment},
    )
    return recipe.model_copy(update=_laid_over(invocation.given, recipe)) if invocation.given else recipe


def _laid_over(given: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """What a caller gives as objects, its sets beside those of the recipe."""
    sets = given.get("val", {})
    taken = next((name for name in sets if name in recipe.val), None)
    if taken is not None:
        raise UsageError(f"{taken}=: the recipe has a set of this name", hint="give that set another name")
    return {**given, "val": {**recipe.val, **sets}}


def _told_apart(words: Sequence[str], *, learned: bool) -> dict[str, str]:
    """The words of --by: of `soup learned`, how coefficients are found; all others, the metric of --top.

    Raises UsageError for two of a kind.
    """
    methods = [word for word in words if learned and word in ("gradient", "search")]
    metrics = [word for word in words if word not in methods]
    for several in (methods, metrics):
        if len(several) > 1:
            raise UsageError(
                f"--by: {several[0]} and {several[1]} are two, and one can be meant", hint="name one of them"
            )
    for word in metrics if learned else ():
        if near := suggestion(word, ("gradient", "search")):
            raise UsageError(f"--by {word}: neither gradient nor search{near}", hint="a metric of --top: --by=-NAME")
    told = {"found_by": methods, "by": metrics}
    return {key: words[0] for key, words in told.items() if words}


def _in_pairs(words: Sequence[str]) -> dict[str, str]:
    """`--weights-for PATTERN WEIGHTS PATTERN WEIGHTS` as a mapping. Raises UsageError if one lacks its other half."""
    if len(words) % 2 or len({*words[::2]}) * 2 != len(words):
        raise UsageError(
            f"--weights-for {' '.join(words)}: a pattern and its weights, each pattern once",
            hint="--weights-for 'blocks.*' 0.7,0.3",
        )
    return dict(zip(words[::2], words[1::2], strict=True))
