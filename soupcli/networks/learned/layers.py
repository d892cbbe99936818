"""Finds the layers of a network from its module tree: stem, blocks, what follows them, and the head.

A block is a module with at least two weight matrices; a trunk is a list of at least two blocks (`nn.Sequential`,
`nn.ModuleList`, `nn.ModuleDict`). Each block of a trunk is a layer, or is divided again if it holds a trunk itself
(the stages of a ResNet or Swin); what comes before the first trunk is the stem. In a network without trunks every
child is a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from soupcli.late import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.networks.network import Batch

WHOLE = "model"  # the name of the one layer if all tensors are mixed alike


class Layer(NamedTuple):
    """Tensors that are mixed with the same coefficients: parameters and persistent buffers, each once."""

    name: str
    tensors: list[Tensor]


def layers(module: nn.Module, *, per: Literal["model", "layer", "tensor"], head: str | None = None) -> list[Layer]:
    """The floating tensors of `module` divided by `per`, in the order of the module tree; a tied one comes once.

    `head`: the name of the module that gives the logits (see `head_of`), a layer of its own.
    """
    named = _named_tensors(module)
    if per == "tensor":
        return [Layer(name, [tensor]) for name, tensor in named.items()]
    if per == "model":
        return [Layer(WHOLE, list(named.values()))]
    names = _layer_names(module)
    divided: dict[str, list[Tensor]] = {}
    for name, tensor in named.items():
        owner = name.rpartition(".")[0]
        layer = (head or WHOLE) if owner == head else _layer_of(owner, names)
        divided.setdefault(layer, []).append(tensor)
    return [Layer(name, tensors) for name, tensors in divided.items()]


def head_of(module: nn.Module, forward: Callable[[Batch], Tensor], inputs: Batch) -> str | None:
    """Return the name of the one `nn.Linear` whose unchanged output is the logits, or None."""
    gave: list[tuple[str, Tensor]] = []
    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: gave.append((name, output)))
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        logits = forward(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name, output in gave if output is logits]
    once = len(names) == 1 and [name for name, _ in gave].count(names[0]) == 1
    return names[0] if once else None


def _named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Floating parameters and persistent buffers by their first name in the state dict."""
    first: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor) and (tensor.is_floating_point() or tensor.is_complex()):
            first.setdefault(id(tensor), (name, tensor))
    return dict(first.values())


def _layer_of(owner: str, names: dict[str, str]) -> str:
    """The layer of a module: its own, or that of the nearest module around it that has one."""
    while owner not in names:
        owner = owner.rpartition(".")[0]
    return names[owner]


def _layer_names(module: nn.Module) -> dict[str, str]:
    """Module name -> layer name, for every module at which a layer begins."""
    names: dict[str, str] = {}
    is_trunk = _is_trunk if any(_is_trunk(part) for part in module.modules()) else _is_list
    has_trunk = {part for part in module.modules() if any(is_trunk(inner) for inner in part.modules())}
    _divide("", module, has_trunk, is_trunk, names)
    return names


def _divide(
    path: str,
    module: nn.Module,
    has_trunk: set[nn.Module],
    is_trunk: Callable[[nn.Module], bool],
    names: dict[str, str],
) -> None:
    if module not in has_trunk and path:
        names[path] = path
        return
    children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
    stem = [] if is_trunk(module) or module not in has_trunk else _before_trunk(children, has_trunk)
    own = next(module.parameters(recurse=False), None) is not None
    names[path] = f"{path}.stem" if path else "stem"
    if len(stem) == 1 and not own:
        names[path] = stem[0]
    for child_path, child in children:
        if child_path in stem:
            names[child_path] = names[path]
        else:
            _divide(child_path, child, has_trunk, is_trunk, names)


def _before_trunk(children: Iterable[tuple[str, nn.Module]], has_trunk: set[nn.Module]) -> list[str]:
    """Names of the children with parameters before the first one with a trunk."""
    names: list[str] = []
    for name, child in children:
        if child in has_trunk:
            break
        if next(child.parameters(), None) is not None:
            names.append(name)
    return names


def _is_trunk(part: nn.Module) -> bool:
    return sum(_is_block(child) for child in _listed(part)) >= 2


def _is_list(part: nn.Module) -> bool:
    """Whether a list counts as a trunk if no list of blocks is found: it has two layers with parameters."""
    return sum(any(True for _ in child.parameters()) for child in _listed(part)) >= 2


def _listed(part: nn.Module) -> list[nn.Module]:
    """The modules of a list; none of other modules."""
    is_list = isinstance(part, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    return list(part.children()) if is_list else []


def _is_block(part: nn.Module) -> bool:
    return len(list(_matrices(part))) >= 2


def _matrices(part: nn.Module) -> Iterator[Tensor]:
    yield from (parameter for parameter in part.parameters() if parameter.dim() >= 2)
