"""Batch-norm running statistics, estimated again for weights that were averaged.

The statistics of a mean of networks are not the mean of their statistics (Izmailov et al. 2018, arXiv:1803.05407,
section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from soupcli.network import Batch


def has_running_statistics(module: nn.Module) -> bool:
    """Whether any layer keeps running statistics."""
    return any(_keeps_statistics(layer) for layer in module.modules())


@torch.no_grad()
def recalibrate(module: nn.Module, forward: Callable[[Batch], Tensor], inputs: Iterable[Batch]) -> None:
    """Sets running means and variances to their averages over `inputs`; everything else stays in evaluation mode."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and _keeps_statistics(layer)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over batches
        layer.train()
    try:
        for batch in inputs:
            forward(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


def _keeps_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None
