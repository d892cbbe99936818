"""Batch-norm running statistics, estimated again for weights that were averaged.

The statistics of a mean of networks are not the mean of their statistics (Izmailov et al. 2018, arXiv:1803.05407,
section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from soupcli.late import nn, no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

    from soupcli.networks.network import Batch

BATCH = 64  # examples in a batch, whatever --batch-size says: layers are normalised by their batch meanwhile
SEED = 0  # of the order of examples: sets are sorted by class, and a batch of one class has other statistics


def layers_with_statistics(module: nn.Module) -> list[_BatchNorm]:
    """Return the layers that keep running statistics."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
    ]


def calibration_batches(examples: int) -> list[Tensor]:
    """Return indices of all examples, shuffled, in batches that are as even as possible."""
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(SEED))
    return list(torch.tensor_split(order, -(-examples // BATCH)))


@no_grad
def recalibrate(module: nn.Module, forward: Callable[[Batch], Tensor], inputs: Iterable[Batch]) -> None:
    """Set running means and variances to those of each layer's input over all of `inputs`.

    These layers normalise by the present batch, as in training; everything else stays in evaluation mode.
    """
    layers = layers_with_statistics(module)
    moments = [_Moments() for _ in layers]
    hooks = [
        layer.register_forward_pre_hook(partial(_collect, seen)) for layer, seen in zip(layers, moments, strict=True)
    ]
    for layer in layers:
        layer.train()
    try:
        for batch in inputs:
            forward(batch)
    finally:
        for layer, hook in zip(layers, hooks, strict=True):
            hook.remove()
            layer.eval()
    for layer, seen in zip(layers, moments, strict=True):
        seen.write(layer)


class _Moments:
    """Count, sum and sum of squares of each channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_c: Tensor | float = 0.0
        self.squares_c: Tensor | float = 0.0

    def add(self, inputs: Tensor) -> None:
        dims = [dim for dim in range(inputs.dim()) if dim != 1]  # [N, C, ...]
        count = inputs.numel() // inputs.shape[1]
        var_c, mean_c = (part.cpu().double() for part in torch.var_mean(inputs.float(), dims, correction=0))
        self.count += count
        self.sum_c = self.sum_c + count * mean_c
        self.squares_c = self.squares_c + count * (var_c + mean_c**2)

    def write(self, layer: _BatchNorm) -> None:
        """Write mean and unbiased variance, as torch keeps them. A layer without input keeps its statistics."""
        if self.count < 2 or layer.running_mean is None or layer.running_var is None:
            return
        assert isinstance(self.sum_c, torch.Tensor)
        mean_c = self.sum_c / self.count
        var_c = (self.squares_c / self.count - mean_c**2).clamp(min=0) * (self.count / (self.count - 1))
        layer.running_mean.copy_(mean_c)
        layer.running_var.copy_(var_c)


def _collect(moments: _Moments, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    moments.add(inputs[0])
