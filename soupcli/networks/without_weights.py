"""A module built without its weights: parameters on the meta device, buffers real.

Every parameter is filled from a checkpoint, so nothing is initialised and no memory is taken. Buffers that no
checkpoint holds (rotary frequencies, position ids) are computed by the module itself, so they are real.
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
    """What `builder` returns, in evaluation mode, with parameters on the meta device if its code allows it.

    Code that looks at a parameter's values while it builds, or keeps something made of them, is run again with real
    parameters: the network is the same, its weights are overwritten either way. torch's random state is left as it was.
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
    """Whether something beside parameters was made of parameters: then it is on the meta device too."""
    return any(
        isinstance(value, torch.Tensor) and value.is_meta
        for part in module.modules()
        for value in (*part._buffers.values(), *vars(part).values())
    )


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Parameters lose their memory when a module registers them, and do not get it back when it is moved."""
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
    """Gives parameters memory on `device` and moves buffers there; what is shared stays shared.

    A tensor keeps its identity if torch allows it, so that lists which a module keeps of its own parameters stay
    right too. Raises NetworkError for lazy layers, whose shapes are not known.
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
    """The tensor itself, with memory on `device`; another one if something holds a weak reference to it."""
    if isinstance(tensor, nn.Parameter):
        memory = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.detach().to(device)
        moved: Tensor = nn.Parameter(memory, requires_grad=False)
    else:
        moved = tensor.to(device).contiguous()
        if moved is tensor:
            return tensor
    try:
        torch.utils.swap_tensors(tensor, moved)
    except RuntimeError:
        return moved
    return tensor
