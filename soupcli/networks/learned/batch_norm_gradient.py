"""The gradient by batch norm's running statistics, which torch lacks: they are mixed like weights.

    y = (x - mean) * w / sqrt(var + eps) + b
    dL/dmean = -sum(g) * w / sqrt(var + eps)        dL/dvar = -sum(g * (x - mean)) * w / (2 * (var + eps)^(3/2))

Letters in names: c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from soupcli.networks.batch_norm import layers_with_statistics


def statistics_of(module: nn.Module) -> dict[int, Tensor]:
    """A leaf for each running mean and variance, by the identity of the buffer whose memory it shares."""
    layers = layers_with_statistics(module)
    both = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var) if buffer is not None]
    return {id(buffer): buffer.detach() for buffer in both}


def through_statistics(module: nn.Module, leaves: Mapping[int, Tensor]) -> ExitStack:
    """Within the block, backward passes through the module leave gradients in the `leaves` that require them."""
    mode: Any = _Mode(leaves)
    stack = ExitStack()

    def enter(*_: Any) -> None:
        mode.__enter__()

    def leave(*_: Any) -> None:
        mode.__exit__(None, None, None)

    for layer in layers_with_statistics(module):
        stack.callback(layer.register_forward_pre_hook(enter).remove)
        stack.callback(layer.register_forward_hook(leave, always_call=True).remove)
    return stack


class _Mode(TorchFunctionMode):
    """Adds the gradient to calls of `functional.batch_norm`, whatever the layer does before and after."""

    def __init__(self, leaves: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.leaves = leaves

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is not functional.batch_norm or not torch.is_grad_enabled():
            return output
        (inputs, mean_c, var_c), others = args, kwargs or {}  # as torch passes them on, however they were given
        leaf_mean_c, leaf_var_c = (self.leaves.get(id(buffer)) for buffer in (mean_c, var_c))
        if others["training"] or leaf_mean_c is None or leaf_var_c is None:
            return output
        return _Statistics.apply(output, inputs.detach(), leaf_mean_c, leaf_var_c, others["weight"], others["eps"])


class _Statistics(torch.autograd.Function):
    """The unchanged output, with a gradient path to the statistics."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, inputs: Tensor, mean_c: Tensor, var_c: Tensor, weight_c: Any, eps: Any
    ) -> Any:
        """See the head of this file."""
        ctx.save_for_backward(inputs, mean_c, var_c, weight_c)
        ctx.eps = eps
        ctx.mark_dirty(output)  # so that what follows may work in place
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """See the head of this file."""
        inputs, mean_c, var_c, weight_c = ctx.saved_tensors
        gradient = gradients[0].to(mean_c.dtype)
        dims = [dim for dim in range(inputs.dim()) if dim != 1]  # [N, C, ...]
        shape = [-1 if dim == 1 else 1 for dim in range(inputs.dim())]
        scale_c = (var_c + ctx.eps).rsqrt()
        weighted_c = scale_c if weight_c is None else scale_c * weight_c.to(mean_c.dtype)
        by_mean_c = -gradient.sum(dims) * weighted_c
        by_var_c = (gradient * (inputs - mean_c.view(shape))).sum(dims) * weighted_c * scale_c.square() / -2
        return gradients[0], None, by_mean_c, by_var_c, None, None
