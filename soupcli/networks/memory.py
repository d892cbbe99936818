"""Memory for the parameters of a module that was built without weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from soupcli.errors import NetworkError


def materialise(module: nn.Module, device: torch.device) -> None:
    """Gives parameters memory on `device` and moves buffers there; what is shared stays shared.

    A tensor keeps its identity where torch allows it, so that lists which a module keeps of its own parameters stay
    right too. Raises NetworkError for lazy layers, whose shapes are not known.
    """
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is None:
                continue
            if is_lazy(tensor):
                raise NetworkError(
                    f"the network {type(module).__name__}: {type(part).__name__} has no shape before its first batch",
                    hint="send a batch through the network in the function that builds it",
                )
            if id(tensor) not in made:
                made[id(tensor)] = _on_device(tensor, device)
            if made[id(tensor)] is not tensor:
                setattr(part, name, made[id(tensor)])
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters()


def _on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor itself, with memory on `device`; another one where something holds a weak reference to it."""
    if isinstance(tensor, nn.Parameter):
        memory = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.detach().to(device)
        moved: Tensor = nn.Parameter(memory, requires_grad=False)
    else:
        moved = tensor.to(device).contiguous()
        if moved is tensor:
            return tensor
    try:
        torch.utils.swap_tensors(tensor, moved)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return moved
    return tensor
