"""Warnings about the checkpoints of a run, before anybody believes their scores. Each function returns one, or None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.computed_weights import weight_norms
from soupcli.checkpoints.compare.settings import differing_settings
from soupcli.networks.build import key_of_network

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.tensor_filter import TensorFilter
    from soupcli.recipe.networks import NetworkSpec


def different_inputs(checkpoints: Sequence[Checkpoint]) -> str | None:
    """A warning that names what the networks saw differently, by their side files; a soup carries one set of these."""
    found = [setting for setting in differing_settings(checkpoints) if setting.of_inputs]
    if not found:
        return None
    shown = "; ".join(f"{setting.key} ({' | '.join(dict.fromkeys(setting.values))})" for setting in found[:3])
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return f"different inputs, by the files beside the weights: {shown}{more}"


def weight_norm(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """A warning that the soup of a network with weight norm averages magnitudes and directions separately."""
    found = [name for name in weight_norms(checkpoints[0]) if selection.mixes(name)]
    if not found or len(checkpoints) < 2:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"weight norm ({found[0]!r}{more}): the mean is of magnitudes and of directions, each by itself; "
        "remove_weight_norm before saving gives the mean of the weights"
    )


def different_side_files(checkpoints: Sequence[Checkpoint], model: NetworkSpec | None) -> str | None:
    """A warning if checkpoints do not agree in the files that describe their networks and inputs."""
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
