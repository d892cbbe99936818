"""Builds a module without its weights: parameters on the meta device, buffers real.

Every parameter is filled from a checkpoint, so nothing is initialised and no memory is allocated. Buffers that are in
no checkpoint (rotary frequencies, position ids) are computed by the module itself, so they are real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from soupcli.errors import NetworkError
from soupcli.late import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

# What torch raises if code wants the values of a tensor on the meta device: .item(), .numpy(), .cpu(), an index.
NEEDS_VALUES = (NotImplementedError, RuntimeError, TypeError, ValueError)


def make_without_weights(builder: Callable[[], nn.Module]) -> nn.Module:
    """Return the result of `builder` in evaluation mode, with parameters on the meta device if its code allows it.

    Code that reads a parameter's values while it builds, or keeps something made from them, is run again with real
    parameters. The network is the same, because its weights are overwritten anyway. torch's random state is restored.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with _parameters_on_meta():
                module = builder()
            if not _keeps_values(module):
                return module.eval()
        except NEEDS_VALUES:
            pass
        return builder().eval()


def _keeps_values(module: nn.Module) -> bool:
    """Whether something besides parameters is on the meta device, because it was made from parameters."""
    return any(
        isinstance(value, torch.Tensor) and value.is_meta
        for part in module.modules()
        for value in (*part._buffers.values(), *vars(part).values())
    )


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Move parameters to the meta device as modules register them, within the block."""
    register_parameter, apply = nn.Module.register_parameter, nn.Module._apply
    twins = torch.utils.weak.WeakIdKeyDictionary()  # a parameter that two modules share stays one parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta and not nn.parameter.is_lazy(param):
            if param not in twins:
                twins[param] = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
            param = twins[param]
        register_parameter(self, name, param)

    def move(self: nn.Module, fn: Callable[[Tensor], Tensor], *args: Any, **options: Any) -> nn.Module:
        def convert(tensor: Tensor) -> Tensor:
            if not tensor.is_meta or nn.parameter.is_lazy(tensor):
                return fn(tensor)
            return tensor.to(fn(torch.empty(0, dtype=tensor.dtype)).dtype)

        moved: nn.Module = apply(self, convert, *args, **options)  # type: ignore[no-untyped-call]
        return moved

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    nn.Module._apply = move  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register_parameter  # type: ignore[method-assign]
        nn.Module._apply = apply  # type: ignore[method-assign]


def materialise(module: nn.Module, device: torch.device) -> None:
    """Give parameters memory on `device` and move buffers there. Shared tensors stay shared.

    A tensor keeps its identity if torch allows it, so that a module's own lists of parameters stay right. Raises
    NetworkError for lazy layers, whose shapes are unknown.
    """
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is None:
                continue
            if nn.parameter.is_lazy(tensor):
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
    """Return the tensor with memory on `device`, or a new tensor if something holds a weak reference to it."""
    if isinstance(tensor, nn.Parameter):
        moved: Tensor = nn.Parameter(_memory_of(tensor, device), requires_grad=False)
    else:
        moved = tensor.to(device).contiguous()
        if moved is tensor:
            return tensor
    try:
        torch.utils.swap_tensors(tensor, moved)
    except RuntimeError:
        return moved
    return tensor


def _memory_of(parameter: Tensor, device: torch.device) -> Tensor:
    """Return the parameter's values on `device`, or memory of its shape and strides if it has no values."""
    if not parameter.is_meta:
        return parameter.detach().to(device)
    if parameter.is_contiguous():  # empty_like of a meta tensor imports torch.export and sympy: a second of a start
        return torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
    return torch.empty_like(parameter, device=device)
