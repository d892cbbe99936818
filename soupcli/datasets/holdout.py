"""Divides a set into a part that selects and a part that is reported: `--holdout 0.5`.

Both come from one decode. The parts of `val` are the sets `val[selecting]` and `val[held out]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from soupcli.errors import ValidationError
from soupcli.late import torch
from soupcli.recipe.sets import SETS
from soupcli.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.datasets.class_map import ClassMap
    from soupcli.datasets.examples import Examples
    from soupcli.metrics.metric import LabelKind
    from soupcli.networks.network import Batch
    from soupcli.recipe.sets import SetSpec

SEED = 0
_SELECTING, _HELD_OUT = "[selecting]", "[held out]"


class SetPart(NamedTuple):
    """A part of the set `of`: the held-out `share` of it, or the rest."""

    of: str
    share: float
    held_out: bool


def held_out_of(name: str) -> str:
    """Return the name of the held-out part of a set."""
    return f"{name}{_HELD_OUT}"


def whole_of(name: str) -> str:
    """Return the name of the set that a part belongs to, or the name itself for a whole set."""
    return name.removesuffix(_SELECTING).removesuffix(_HELD_OUT)


def selecting_part_of(name: str) -> str:
    """Return the name of the selecting part of a set."""
    return f"{name}{_SELECTING}"


def divide(
    sets: Mapping[str, SetSpec], share: float | None, chosen: Sequence[str] | None = None
) -> tuple[dict[str, SetSpec], dict[str, SetPart]]:
    """Divide each of the `chosen` sets (default: the first) into its two parts, and return all sets.

    Selecting parts come first, then held-out parts, then other sets. Nothing changes if `share` is None or 0. Raises
    ValidationError if a set to be divided shows no examples.
    """
    if not share or not sets:
        return dict(sets), {}
    wanted = list(sets)[:1] if chosen is None else list(chosen)
    for name in wanted:
        if not sets[name].shows_examples:
            kind = next(key for key, of_kind in SETS.items() if isinstance(sets[name], of_kind))
            raise ValidationError(
                f"holdout: val.{name} is a {kind} set, which shows no examples to hold out",
                hint="name a set that takes no part instead: --val SET OTHER",
            )
    selecting = {selecting_part_of(name): SetPart(name, share, False) for name in wanted}
    held_out = {held_out_of(name): SetPart(name, share, True) for name in wanted}
    parts = {**selecting, **held_out}
    whole = {name: spec for name, spec in sets.items() if name not in wanted}
    return {**{part: sets[of.of] for part, of in parts.items()}, **whole}, parts


@dataclass(frozen=True, eq=False)
class PartOfExamples:
    """The examples of `whole` at `indices`, int64 [N], ascending."""

    whole: Examples
    indices: Tensor
    fingerprint: str

    @property
    def labels(self) -> Tensor:
        """Of these examples."""
        return self.whole.labels[self.indices]

    @property
    def kind(self) -> LabelKind:
        """As of the whole."""
        return self.whole.kind

    @property
    def classes(self) -> ClassMap | None:
        """As of the whole."""
        return self.whole.classes

    @property
    def alike(self) -> bool:
        """As of the whole."""
        return self.whole.alike

    def order(self, difficulty: Tensor | None = None) -> Tensor:
        """Return the best order of the whole, restricted to this part."""
        place = torch.full((len(self.whole.labels),), -1, dtype=torch.int64)
        place[self.indices] = torch.arange(len(self.indices))
        of_whole = None
        if difficulty is not None:
            of_whole = difficulty.new_zeros(len(place))
            of_whole[self.indices] = difficulty
        order = place[self.whole.order(of_whole)]
        return order[order >= 0]

    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """Return the whole's inputs of these examples."""
        return self.whole.batch(self.indices[indices], device)


def part_of(whole: Examples, part: SetPart, fingerprint: str) -> PartOfExamples:
    """Return the part, divided within each class if examples have one. Raises ValidationError if it is empty."""
    labels_n = strata_of(whole.labels, one_class=whole.kind == "classes")
    kept, held_out = split_by_class(labels_n, part.share, seed=SEED, key="holdout")
    return PartOfExamples(whole, held_out if part.held_out else kept, fingerprint)


def strata_of(labels: Tensor, *, one_class: bool) -> Tensor:
    """Return the class of each example if it has one, else 0 for all, int64 [N]."""
    return labels if one_class else torch.zeros(len(labels), dtype=torch.int64)


def split_by_class(labels_n: Tensor, share: float, *, seed: int, key: str = "learned.holdout") -> tuple[Tensor, Tensor]:
    """Return the indices of the remaining and of the held-out examples, each ascending.

    About `share` of every class is held out: rounded over the classes together, so that the whole is right to half an
    example. Raises ValidationError if either part would be empty; `key` of the recipe gives the share.
    """
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(labels_n), dtype=torch.bool)
    seen = taken = 0
    counts = torch.unique(labels_n, return_counts=True)[1].tolist()
    for of_class in torch.split(torch.argsort(labels_n, stable=True), counts):
        seen += len(of_class)
        count = round(share * seen) - taken
        taken += count
        held_out[of_class[torch.randperm(len(of_class), generator=generator)[:count]]] = True
    if taken in (0, len(labels_n)):
        raise ValidationError(
            f"{key}: {share} of {counted(len(labels_n), 'example')} leaves one part empty",
            hint="a larger set is needed",
        )
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


def folds_by_class(
    labels_n: Tensor, folds: int, *, seed: int, key: str = "learned.folds"
) -> list[tuple[Tensor, Tensor]]:
    """Return the indices of the remaining and of the held-out examples for each fold, each ascending.

    Each example is held out once; each class is spread evenly over the folds. Raises ValidationError if there are
    fewer examples than folds.
    """
    if len(labels_n) < folds:
        raise ValidationError(
            f"{key}: {folds} folds of {counted(len(labels_n), 'example')}", hint="a larger set is needed"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled_n = torch.randperm(len(labels_n), generator=generator)
    by_class_n = shuffled_n[labels_n[shuffled_n].argsort(stable=True)]
    fold_n = torch.empty_like(by_class_n)
    fold_n[by_class_n] = torch.arange(len(labels_n)) % folds
    return [((fold_n != k).nonzero().flatten(), (fold_n == k).nonzero().flatten()) for k in range(folds)]
