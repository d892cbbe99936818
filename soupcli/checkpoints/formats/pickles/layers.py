"""What the layers of a pickled module compute besides their weights: activations, strides, heads.

    settings_of_layers(module)                              # {"1.activation": "ReLU", "3.num_heads": 4}

Layers of torch alone are known: what a class of others does with an attribute, its name does not say.
"""

from __future__ import annotations

from typing import Any

from soupcli.checkpoints.formats.pickles.modules import is_module
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn, entries_of

TORCH = "torch.nn.modules."
# Modules of torch -> what their layers differ in by their class alone.
BY_CLASS = {f"{TORCH}activation": "activation", f"{TORCH}pooling": "pooling"}
# Attributes of layers -> the settings that they are. Shapes of weights say the others.
ATTRIBUTES = {
    "num_heads": "num_heads",
    "stride": "stride",
    "padding": "padding",
    "dilation": "dilation",
    "padding_mode": "padding_mode",
    "eps": "norm_eps",
    "negative_slope": "negative_slope",
    "approximate": "approximate",
    "norm_first": "norm_first",
}
MOST = 20_000  # layers that are looked at


def settings_of_layers(module: StandIn) -> dict[str, Any]:
    """Return the settings of the layers in a module by their dotted names."""
    found: dict[str, Any] = {}
    waiting = [("", module)]
    for _ in range(MOST):
        if not waiting:
            break
        prefix, layer = waiting.pop()
        found |= {f"{prefix}{name}": value for name, value in _own_settings(layer).items()}
        inner = entries_of(layer.attributes.get("_modules")) or {}
        waiting += [(f"{prefix}{name}.", part) for name, part in inner.items() if is_module(part)]
    return found


def _own_settings(layer: StandIn) -> dict[str, Any]:
    of_torch, _, class_ = layer.full_name.rpartition(".")
    if not of_torch.startswith(TORCH):
        return {}
    found: dict[str, Any] = {setting: class_ for at, setting in BY_CLASS.items() if at == of_torch}
    return found | {ATTRIBUTES[name]: value for name, value in layer.attributes.items() if name in ATTRIBUTES}
