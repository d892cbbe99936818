"""Inputs and labels of a validation set, ready for a network, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.datasets.class_map import ClassMap
    from soupcli.metrics.metric import LabelKind
    from soupcli.networks.network import Batch

BLOCKS = 8  # of examples of like difficulty, in each of which sequences are sorted by length


def kind_of(labels: Tensor) -> LabelKind:
    """Return the kind of labels, which must not be numbers of tokens."""
    if labels.is_floating_point():
        return "numbers"
    if labels.dtype == torch.uint8:
        return "multilabel"
    return "several" if labels.dim() == 2 else "classes"


class Examples(Protocol):
    """N labelled examples."""

    @property
    def labels(self) -> Tensor:
        """As `LabelKind` says."""

    @property
    def kind(self) -> LabelKind:
        """The kind of the labels."""

    @property
    def classes(self) -> ClassMap | None:
        """The logits of each class, or None if logit n is class n."""

    @property
    def alike(self) -> bool:
        """Whether all inputs have one shape, so that no example is padded for its neighbours."""

    @property
    def fingerprint(self) -> str:
        """The identity of the examples and of the way in which inputs are made."""

    def order(self, difficulty: Tensor | None = None) -> Tensor:
        """Return the best order to visit examples, int64 [N]: hardest first if difficulty is known."""

    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """Return the inputs of these examples, on the device."""


@dataclass(frozen=True, eq=False)
class ArrayExamples:
    """Inputs that are one tensor [N, ...]. `normalise` turns a batch into the network's input."""

    inputs: Tensor
    labels: Tensor
    fingerprint: str
    normalise: Callable[[Tensor], Tensor] | None = None
    classes: ClassMap | None = None

    @property
    def kind(self) -> LabelKind:
        """One class, several classes or a number for each example."""
        return kind_of(self.labels)

    @property
    def alike(self) -> bool:
        """Always True."""
        return True

    def order(self, difficulty: Tensor | None = None) -> Tensor:
        """Return the given order, or hardest first."""
        return hardest_first(torch.arange(len(self.labels)), difficulty)

    def batch(self, indices: Tensor, device: torch.device) -> Tensor:
        """Tensor [n, ...]."""
        inputs = self.inputs[indices.to(self.inputs.device)].to(device)
        return self.normalise(inputs) if self.normalise is not None else inputs


@dataclass(frozen=True, eq=False)
class TokenExamples:
    """Token sequences of many lengths, end to end: example i is `columns[name][starts[i]:starts[i + 1]]`."""

    columns: Mapping[str, Tensor]  # input_ids, attention_mask, ... -> int64 [total tokens]
    starts: Tensor  # int64 [N + 1]
    labels: Tensor
    fingerprint: str
    padding: Mapping[str, int]
    pad_left: bool = False
    classes: ClassMap | None = None

    @property
    def kind(self) -> LabelKind:
        """A class or a number for each example."""
        return kind_of(self.labels)

    @property
    def alike(self) -> bool:
        """Always False: sequences differ in length."""
        return False

    def order(self, difficulty: Tensor | None = None) -> Tensor:
        """Return the longest first, so that neighbours have similar lengths, and memory runs out at once if it does.

        Only blocks are sorted by difficulty, so that neighbours still have similar lengths.
        """
        longest_first = torch.argsort(self.starts.diff(), descending=True, stable=True)
        if difficulty is None:
            return longest_first
        place = torch.empty_like(longest_first)
        place[longest_first] = torch.arange(len(place))
        blocks = torch.split(hardest_first(longest_first, difficulty), -(-len(place) // BLOCKS))
        return torch.cat([block[place[block].argsort()] for block in blocks])

    def batch(self, indices: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Each column [n, longest], padded."""
        begins, lengths = self.starts[indices], self.starts.diff()[indices]
        place = torch.arange(int(lengths.max()))[None, :]
        if self.pad_left:
            place = place - (place.shape[1] - lengths[:, None])
        inside = (place >= 0) & (place < lengths[:, None])
        source = (begins[:, None] + place).clamp(0, int(self.starts[-1]) - 1)
        return {
            name: torch.where(inside, column[source], self.padding.get(name, 0)).to(device)
            for name, column in self.columns.items()
        }


def hardest_first(order: Tensor, difficulty: Tensor | None) -> Tensor:
    """Sort indices by difficulty, hardest first. Equal ones, or all if difficulty is unknown, keep their order."""
    return order if difficulty is None else order[difficulty[order].argsort(descending=True, stable=True)]


def hardest_batches_first(order: Tensor, size: int, difficulty: Tensor) -> Tensor:
    """Sort whole batches of `size` by their summed difficulty. An incomplete batch stays last.

    Every example keeps its neighbours in `order`, and therefore its logits to the last bit.
    """
    whole = len(order) // size * size
    batches = order[:whole].view(-1, size)
    hardest = difficulty[batches].sum(dim=1).argsort(descending=True, stable=True)
    return torch.cat([batches[hardest].flatten(), order[whole:]])
