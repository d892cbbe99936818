"""A labelled set, the network's logits for it (with gradients on request), and its division into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soupcli.evaluation.loop import logits_of
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.datasets.examples import Examples
    from soupcli.networks.network import Forward

PARTS = 4  # of a batch, by length
FEWEST = 8  # examples of a part


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """The examples of a set, the forward pass of the live network, and its device."""

    examples: Examples
    forward: Callable[[], Forward]
    name: str
    device: torch.device
    batch_size: int

    @property
    def labels(self) -> Tensor:
        """int64 [N], or uint8 [N, classes] of 0 and 1."""
        return self.examples.labels

    def logits(self, indices: Tensor) -> Tensor:
        """Return logits [n, classes] of these examples at the network's present weights, on the CPU, float32 or wider.

        Raises NetworkError if the network fails, ValidationError if labels and logits do not go together.
        """
        inputs, labels = self.examples.batch(indices, self.device), self.labels[indices]
        return logits_of(self.forward(), inputs, labels, self.name, self.examples.kind)

    def batches(self, indices: Tensor) -> Iterator[Tensor]:
        """Yield batches of these examples, in the best order to visit them.

        On the CPU, examples of different lengths are divided into parts of similar length, which need less padding.
        """
        rank = torch.empty(len(self.labels), dtype=torch.int64)
        rank[self.examples.order()] = torch.arange(len(rank))
        size = self.batch_size
        if self.device.type == "cpu" and not self.examples.alike:
            size = min(size, max(FEWEST, -(-len(indices) // PARTS)))
        yield from torch.split(indices[rank[indices].argsort()], size)
