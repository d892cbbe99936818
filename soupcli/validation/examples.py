"""Inputs and labels of a validation set, ready for a network, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from soupcli.network import Batch
from soupcli.validation.class_map import ClassMap

# What labels are: int64 [N]; int64 [N, M], several right ones, filled up with -1; float64 [N]; int64 [N], the number of
# tokens that each window predicts.
LabelKind = Literal["classes", "several", "numbers", "tokens"]


def kind_of(labels: Tensor) -> LabelKind:
    """The kind of such labels, where they are not numbers of tokens."""
    if labels.is_floating_point():
        return "numbers"
    return "several" if labels.dim() == 2 else "classes"


class Examples(Protocol):
    """N labelled examples."""

    @property
    def labels(self) -> Tensor:
        """int64 [N] or as `kind` says."""

    @property
    def kind(self) -> LabelKind:
        """What the labels are."""

    @property
    def classes(self) -> ClassMap | None:
        """Which logits count, where not every one stands for the class of its number."""

    @property
    def fingerprint(self) -> str:
        """Changes with every example and with the way in which inputs are made."""

    def order(self) -> Tensor:
        """The order in which examples are best visited: int64 [N]."""

    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """The inputs of these examples, on the device."""


@dataclass(frozen=True, eq=False)
class ArrayExamples:
    """Inputs that are one tensor [N, ...]; `normalise` makes of a batch what goes into the network."""

    inputs: Tensor
    labels: Tensor
    fingerprint: str
    normalise: Callable[[Tensor], Tensor] | None = None
    classes: ClassMap | None = None

    @property
    def kind(self) -> LabelKind:
        """One class, several classes or a number for each example."""
        return kind_of(self.labels)

    def order(self) -> Tensor:
        """As they come."""
        return torch.arange(len(self.labels))

    def batch(self, indices: Tensor, device: torch.device) -> Tensor:
        """Tensor [n, ...]."""
        inputs = self.inputs[indices].to(device)
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

    def order(self) -> Tensor:
        """Longest first: neighbours are of like length, and a batch that is too large for memory shows at once."""
        return torch.argsort(self.starts.diff(), descending=True, stable=True)

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


def batches(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """The indices of one batch after another."""
    yield from torch.split(order, batch_size)
