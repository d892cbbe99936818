"""Checks of the checkpoints of a run before they are mixed, and warnings, before anybody believes their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.agreement import check_agreement, check_mixable
from soupcli.checkpoints.compare.computed_weights import weight_norms
from soupcli.checkpoints.compare.integers import check_integers
from soupcli.checkpoints.compare.meanings import check_meanings
from soupcli.checkpoints.compare.names import check_ties
from soupcli.checkpoints.compare.products import check_products
from soupcli.checkpoints.compare.settings import Setting, differing_settings
from soupcli.networks.build import key_of_network

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.tensor_filter import TensorFilter
    from soupcli.recipe.networks import NetworkSpec
    from soupcli.recipe.recipe import Recipe


def check_checkpoints(
    checkpoints: Sequence[Checkpoint],
    shared: Callable[[Checkpoint], Checkpoint],
    selection: TensorFilter,
    recipe: Recipe,
) -> None:
    """Raises MixError if the checkpoints cannot be averaged.

    `shared` returns a checkpoint with its tensors that are not mixed from the first one.
    """
    check_agreement(checkpoints, key=recipe.key, base=recipe.base, selection=selection)
    check_products(checkpoints, selection)
    check_ties(checkpoints, selection)
    check_mixable([shared(one) for one in checkpoints])
    check_integers(checkpoints, selection)
    check_meanings(checkpoints, selection)


def different_networks(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return warnings that name what the networks saw and what they compute differently, by their side files."""
    settings = differing_settings(checkpoints)
    computed = [setting for setting in settings if setting.of_network]
    named = [("inputs", [setting for setting in settings if setting.of_inputs]), ("networks", computed)]
    return [f"different {what}, by the files beside the weights: {_shown(found)}" for what, found in named if found]


def _shown(settings: Sequence[Setting]) -> str:
    shown = "; ".join(f"{setting.key} ({' | '.join(dict.fromkeys(setting.values))})" for setting in settings[:3])
    return shown + (f"; and {len(settings) - 3} more" if len(settings) > 3 else "")


def weight_norm(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning that weight norm's magnitudes and directions are averaged separately, or None without any."""
    found = [name for name in weight_norms(checkpoints[0]) if selection.mixes(name)]
    if not found or len(checkpoints) < 2:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"weight norm ({found[0]!r}{more}): the mean is of magnitudes and of directions, each by itself; "
        "remove_weight_norm before saving gives the mean of the weights"
    )


def different_side_files(checkpoints: Sequence[Checkpoint], model: NetworkSpec | None) -> str | None:
    """Return a warning if checkpoints differ in the files that describe their networks and inputs, else None."""
    first = checkpoints[0]
    own = key_of_network(model, first)
    others = [one for one in checkpoints if one.folder != first.folder and key_of_network(model, one) != own]
    if not others:
        return None
    differing = [setting.key for setting in differing_settings([first, others[0]])]
    said = f" ({', '.join(differing[:3])}{', ...' if len(differing) > 3 else ''})" if differing else ""
    count = "1 checkpoint has" if len(others) == 1 else f"{len(others)} checkpoints have"
    return (
        f"{count} other files beside the weights than {first.path}, {others[0].path} for one{said}: each is "
        "judged by its own config.json, image processor, tokenizer and class names, a soup by those it carries"
    )
