"""Restores a network after the user's code had it: everything that the code replaced or switched.

    with restored(module):
        function(module, device)

Values that the code wrote into weights stay, because weights are loaded anew afterwards.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.late import torch
from soupcli.networks.torch_state import torch_restored

if TYPE_CHECKING:
    from torch import Tensor, nn


CONTAINERS = (dict, OrderedDict, set, list)  # of parameters, buffers, modules and hooks


@contextmanager
def restored(module: nn.Module) -> Iterator[None]:
    """Allow any change to `module` within the block, and restore its parts, tensors, hooks and methods afterwards.

    Classes of its parts, and what torch keeps for the whole process, are restored as well.
    """
    parts = {part: _attributes(part) for part in module.modules()}
    kinds = {part: type(part) for part in parts}
    classes = {kind: dict(vars(kind)) for part in parts for kind in type(part).__mro__ if kind is not object}
    tensors = [(tensor, tensor.data, tensor.requires_grad) for tensor in _tensors(module)]
    saved = set(module.state_dict(keep_vars=True))
    constants = [(b, b.detach().clone()) for name, b in module.named_buffers() if name not in saved]
    try:
        with torch_restored():
            yield
    finally:
        for part, kind in kinds.items():
            if type(part) is not kind:
                part.__class__ = kind
        for kind, attributes in classes.items():
            _restore_class(kind, attributes)
        for part, (own, contents) in parts.items():
            _restore_part(part, own, contents)
        for tensor, data, needs_gradient in tensors:
            tensor.data = data
            tensor.requires_grad_(needs_gradient)
            tensor.grad = None
        with torch.no_grad():
            for buffer, value in constants:
                buffer.copy_(value)


SAMPLED = 8  # elements of a tensor that are compared
LOOSE = 1e-2  # relative difference that another dtype makes


class Sampled(NamedTuple):
    """A few elements of a tensor."""

    dtype: torch.dtype
    values: Tensor


def sampled(module: nn.Module) -> dict[str, Sampled]:
    """Return a few elements of each floating tensor of the network, by name."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: _sample(tensor.detach()) for name, tensor in tensors if _can_be_sampled(tensor)}


def _can_be_sampled(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not tensor.is_meta and tensor.layout == torch.strided and tensor.numel() > 0


def _sample(tensor: Tensor) -> Sampled:
    flat = tensor.reshape(-1) if tensor.is_contiguous() else tensor.select(0, 0).reshape(-1)
    return Sampled(tensor.dtype, flat[:: max(1, flat.numel() // SAMPLED)].double().cpu())


def first_changed(before: Mapping[str, Sampled], after: Mapping[str, Sampled]) -> str | None:
    """Return the first tensor whose values have changed, or None. A different dtype is no change."""
    for name, (dtype, values) in after.items():
        if name in before and before[name].values.shape == values.shape:
            loose = 0.0 if before[name].dtype == dtype else LOOSE
            if not torch.allclose(before[name].values, values, rtol=loose, atol=loose * 1e-3, equal_nan=True):
                return name
    return None


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _attributes(part: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attributes of a module, and copies of those that hold parameters, buffers, modules and hooks."""
    own = dict(vars(part))
    return own, {name: value.copy() for name, value in own.items() if type(value) in CONTAINERS}


def _restore_part(part: nn.Module, own: dict[str, Any], contents: dict[str, Any]) -> None:
    attributes = vars(part)
    attributes.clear()
    attributes.update(own)
    for name, content in contents.items():
        held = own[name]
        held.clear()
        held.extend(content) if isinstance(held, list) else held.update(content)


def _restore_class(kind: type, attributes: dict[str, Any]) -> None:
    """Methods that were replaced, added or removed."""
    now = dict(vars(kind))
    for name in now.keys() | attributes.keys():
        if now.get(name) is not attributes.get(name):
            if name in attributes:
                setattr(kind, name, attributes[name])
            else:
                delattr(kind, name)
