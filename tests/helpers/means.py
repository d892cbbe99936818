"""The mean that every soup is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def mean64(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The float64 mean of each floating tensor, rounded once; others are the first state's."""

    def of(name: str) -> Tensor:
        first = states[0][name]
        if not first.is_floating_point():
            return first
        return torch.stack([state[name].double() for state in states]).mean(dim=0).to(first.dtype)

    return {name: of(name) for name in states[0]}


def load_mean(net: nn.Module, others: Sequence[nn.Module]) -> None:
    """Gives the network the float64 mean of the others' weights."""
    net.load_state_dict(mean64([other.state_dict() for other in others]))
