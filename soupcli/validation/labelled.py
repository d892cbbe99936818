"""A labelled set and the network's logits for it, with gradients where they are asked for; and how it is divided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from soupcli.errors import ValidationError
from soupcli.network import Forward
from soupcli.validation.examples import Examples
from soupcli.validation.in_process import logits_of

PARTS = 4  # of a batch, by length
FEWEST = 8  # examples of a part


@dataclass(frozen=True, eq=False)
class Labelled:
    """Examples of a set, the forward pass of the live network (made anew for its weights), and where it runs."""

    examples: Examples
    forward: Callable[[], Forward]
    name: str
    device: torch.device
    batch_size: int

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return self.examples.labels

    def logits(self, indices: Tensor) -> Tensor:
        """Logits [n, classes] of these examples at the network's present weights, on the CPU, float32 or wider.

        Raises NetworkError where the network fails, ValidationError where labels and logits do not go together.
        """
        return logits_of(self.forward(), self.examples.batch(indices, self.device), self.labels[indices], self.name)

    def batches(self, indices: Tensor) -> Iterator[Tensor]:
        """These examples in the order in which they are best visited, as many at a time as go through the network.

        On the CPU, which does not gain by large batches, those of differing lengths go in a few parts of like length:
        less is padded.
        """
        rank = torch.empty(len(self.labels), dtype=torch.int64)
        rank[self.examples.order()] = torch.arange(len(rank))
        size = self.batch_size
        if self.device.type == "cpu" and not self.examples.alike:
            size = min(size, max(FEWEST, -(-len(indices) // PARTS)))
        yield from torch.split(indices[rank[indices].argsort()], size)


def split_by_class(labels_n: Tensor, share: float, *, seed: int, key: str = "learned.holdout") -> tuple[Tensor, Tensor]:
    """Indices of the examples that stay and of those that are held out, each in ascending order.

    About `share` of every class is held out: rounded over the classes together, so that the whole is right to half an
    example. Raises ValidationError where either part would be empty; `key` of the recipe gives the share.
    """
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(labels_n), dtype=torch.bool)
    seen = taken = 0
    for label in torch.unique(labels_n):
        of_class = (labels_n == label).nonzero().flatten()
        seen += len(of_class)
        count = round(share * seen) - taken
        taken += count
        held_out[of_class[torch.randperm(len(of_class), generator=generator)[:count]]] = True
    if taken in (0, len(labels_n)):
        raise ValidationError(
            f"{key}: {share} of {len(labels_n)} examples leaves one part empty", hint="a larger set is needed"
        )
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
