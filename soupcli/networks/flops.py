"""Floating-point operations of a forward pass, as torch counts them: two for each multiplication with its addition.

Matrix products, convolutions and attention count; elementwise operations (norms, activations, sums) do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.networks.network import Batch


def count(forward: Callable[[Batch], Tensor], inputs: Batch) -> int:
    """Return the operations of one pass of these inputs through `forward`."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 - it imports triton: a tenth of a second

    with _attention_in_steps(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(inputs)
    return int(counter.get_total_flops())


@contextmanager
def _attention_in_steps() -> Iterator[None]:
    """Turn off the fast path of nn.MultiheadAttention, a single operation that torch's counter does not know."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
