"""Mixed precision, channels last and torch.compile. Scores depend on them, the soup's weights do not.

arrange(network, channels_last=True, compiled=True)
forward = computing(network.forward, amp="bf16", channels_last=True, device=device)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from soupcli.checkpoints.dtype import Dtype
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.networks.network import Batch, Forward, Network

Amp = Literal["bf16", "fp16"]
_DTYPES = {"bf16": Dtype.BFLOAT16, "fp16": Dtype.FLOAT16}


def arrange(network: Network, *, channels_last: bool, compiled: bool) -> None:
    """Prepare a network that has its memory. Parameters stay the same objects, so weights are loaded as before."""
    if channels_last:
        for parameter in network.module.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if compiled:
        for part in [network.module.get_submodule(name) for name in network.towers] or [network.module]:
            part.compile()


def computing(forward: Forward, *, amp: Amp | None, channels_last: bool, device: torch.device) -> Forward:
    """Return the forward pass under torch.autocast, with pictures in channels-last layout."""
    if amp is None and not channels_last:
        return forward

    def run(inputs: Batch) -> Tensor:
        if channels_last and isinstance(inputs, torch.Tensor) and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, _DTYPES[amp or "bf16"].torch, enabled=amp is not None):
            return forward(inputs)

    return run


def eagerly(forward: Forward) -> Forward:
    """Return the forward pass without compiled code, for gradients and for hooks on layers."""

    def run(inputs: Batch) -> Tensor:
        if "torch._dynamo" not in sys.modules:  # nothing was compiled; a stance would import the compiler: seconds
            return forward(inputs)
        with torch.compiler.set_stance("force_eager"):
            return forward(inputs)

    return run
