"""From options to the recipe of a run, and errors that say where the recipe gives what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from soupcli.cli.ci_formats import Format
from soupcli.cli.commands import Invocation
from soupcli.cli.options import IngredientOptions, RecipeOptions
from soupcli.errors import SoupError, UsageError
from soupcli.recipe.loading import load_recipe
from soupcli.recipe.recipe import Recipe
from soupcli.recipe_yaml import suggestion

DEFAULT_RECIPE = Path("soup.yaml")
# Options that stand for a key of the recipe.
RECIPE_KEYS = {
    **{key: key for key in ("device", "dtype", "metric", "batch_size", "workers", "out", "max_shard_size")},
    **{key: key for key in ("include", "exclude", "base", "key", "adapter_rank", "require_gain", "holdout")},
    **{key: f"greedy.{key}" for key in ("min_delta", "strategy", "orders", "budget")},
    "flops": "cost.flops",
    **{key: key for key in ("amp", "channels_last", "compile", "early_stop", "cache_inputs")},
    **{key: f"learned.{key}" for key in ("per", "constraint", "resident")},
    **{key: f"mix.{key}" for key in ("method", "weights", "alpha", "any_weights")},
}


def resolve_recipe(options: RecipeOptions, invocation: Invocation) -> Recipe:
    """The recipe with environment, --set and flags laid over it, in their order of precedence."""
    values = dataclasses.asdict(options)
    given = {key: values[key] for key in RECIPE_KEYS if values.get(key) not in (None, [])}
    settings: dict[str, str] = {}
    for word in options.set_ or []:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {word}: expected KEY=VALUE", hint="e.g. --set greedy.min_delta=0.001")
        settings[key] = value
    file = options.recipe
    if file is None and DEFAULT_RECIPE.is_file():
        file = DEFAULT_RECIPE
    return load_recipe(
        file,
        variables={RECIPE_KEYS[key]: given[key] for key in given if key in invocation.from_environment},
        settings=settings,
        flags={RECIPE_KEYS[key]: given[key] for key in given if key not in invocation.from_environment},
    )


def begins_at_base(command: str, recipe: Recipe) -> bool:
    """Whether the base is a member of the soup, and not where tensors come from that are not mixed."""
    return command == "mix" and (recipe.mix.alpha is not None or recipe.mix.method == "stock")


def check_output(options: IngredientOptions) -> None:
    """Raises UsageError for an output format that is not known, or beside another one."""
    wanted, known = getattr(options, "output_format", "text"), get_args(Format)
    if wanted not in known:
        raise UsageError(
            f"--output-format {wanted}: not known{suggestion(wanted, known)}", hint=f"one of {', '.join(known)}"
        )
    for flag, given in (("--json", options.as_json), ("--quiet", options.quiet)):
        if wanted != "text" and given:
            raise UsageError(f"--output-format {wanted}: {flag} prints another result", hint="give one of them")


@contextmanager
def located(recipe: Recipe) -> Iterator[None]:
    """Errors that begin with a key of the recipe say where the recipe gives it."""
    try:
        yield
    except SoupError as error:
        locate(error, recipe)
        raise


def locate(error: SoupError, recipe: Recipe) -> None:
    """An error that begins with a key of the recipe says where the recipe gives it."""
    error.args = (recipe.located(str(error)),)
