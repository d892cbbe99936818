"""A labelled set and the network's logits for it, with gradients where they are asked for; and how it is divided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from soupcli.errors import ValidationError
from soupcli.network import Forward
from soupcli.validation.examples import Examples


@dataclass(frozen=True, eq=False)
class Labelled:
    """Examples of a set, the forward pass of the live network (made anew for its weights), and where it runs."""

    examples: Examples
    forward: Callable[[], Forward]
    device: torch.device
    batch_size: int

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return self.examples.labels

    def logits(self, indices: Tensor) -> Tensor:
        """Logits [n, classes] of these examples at the network's present weights.

        Raises ValidationError where they do not go together with the labels.
        """
        logits_nc = self.forward()(self.examples.batch(indices, self.device))
        if logits_nc.dim() != 2 or len(logits_nc) != len(indices):
            raise ValidationError(
                f"the network gives {list(logits_nc.shape)} for {len(indices)} examples, logits [N, classes] are needed"
            )
        if int(self.labels[indices].max()) >= logits_nc.shape[1] or int(self.labels[indices].min()) < 0:
            least, most = int(self.labels.min()), int(self.labels.max())
            raise ValidationError(
                f"labels reach from {least} to {most}, the network has {logits_nc.shape[1]} classes",
                hint="is this the validation set of these checkpoints? class_to_index or labels: map classes to logits",
            )
        return logits_nc

    def batches(self, indices: Tensor) -> Iterator[Tensor]:
        """These examples in the order in which they are best visited, as many at a time as go through the network."""
        rank = torch.empty(len(self.labels), dtype=torch.int64)
        rank[self.examples.order()] = torch.arange(len(rank))
        yield from torch.split(indices[rank[indices].argsort()], self.batch_size)


def split_by_class(labels_n: Tensor, share: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the examples that stay and of those that are held out, each in ascending order.

    About `share` of every class is held out: rounded over the classes together, so that the whole is right to half an
    example. Raises ValidationError where either part would be empty.
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
            f"learned.holdout: {share} of {len(labels_n)} examples leaves one part empty", hint="a larger set is needed"
        )
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
