"""A learned soup from end to end: finds the layers, fits their coefficients, and returns an ordinary mixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.groups import members_of
from soupcli.checkpoints.wide import widened
from soupcli.errors import NetworkError
from soupcli.late import torch
from soupcli.mixing.mixture import Mixture, shared_out
from soupcli.networks.learned.layers import head_of, layers
from soupcli.networks.learned.mixed_network import MixedNetwork
from soupcli.progress import Progress, silent
from soupcli.soups.learned.choice import LearnedSoup, States, learned

if TYPE_CHECKING:
    from torch import Tensor, nn

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.dtype import Dtype
    from soupcli.evaluation.labelled_set import LabelledSet
    from soupcli.networks.learned.residence import Residence
    from soupcli.networks.live import LiveNetwork
    from soupcli.recipe.methods import Learned
    from soupcli.soups.learned.fit import Curves

GRID = 2.0**-48  # coefficients are multiples of it: their sum is exactly 1, so what is equal in all stays as it is


class Layered(NamedTuple):
    """Members and their coefficients (l, k). `tensors` are those of each layer; some are `scaled` as well."""

    members: list[Checkpoint]
    alpha_lk: list[list[float]]
    layers: list[str]
    tensors: list[list[str]]
    scaled: dict[str, float]

    def mixture(self, *, dtype: Dtype | None, keep_from: Checkpoint | None) -> Mixture:
        """The soup. Its `weights`, the rows' means over all elements, apply to tensors in no layer."""
        sizes = [sum(self.members[0].tensors[name].numel for name in names) for names in self.tensors]
        weights = _mean_over_elements(self.alpha_lk, sizes)
        coefficients = {
            name: tuple(weight * self.scaled.get(name, 1.0) for weight in row)
            for row, names in zip(self.alpha_lk, self.tensors, strict=True)
            for name in names
            if tuple(row) != weights or name in self.scaled
        }
        return Mixture(tuple(self.members), weights, dtype, keep_from, coefficients or None)


def of_checkpoints(layered: Layered) -> Layered:
    """Return the same with each group replaced by its checkpoints, which share its coefficient evenly."""
    sizes = [len(members_of(member)) for member in layered.members]
    if not any(member.members for member in layered.members):
        return layered
    members = [one for member in layered.members for one in members_of(member)]
    rows = [list(shared_out(row, sizes)) for row in layered.alpha_lk]
    sums = summing_to_one(torch.tensor(rows, dtype=torch.float64)).tolist()
    even = [row if len(set(row)) == 1 else exact for row, exact in zip(rows, sums, strict=True)]
    return layered._replace(members=members, alpha_lk=even)


class Learnt(NamedTuple):
    """The result of a fit."""

    soup: LearnedSoup
    layered: Layered
    residence: Residence


def learn(
    live: LiveNetwork,
    ingredients: Sequence[Checkpoint],
    task: LabelledSet,
    settings: Learned,
    *,
    start: Sequence[Checkpoint],
    states: States | None = None,
    say_where: Callable[[Residence], None] = lambda _residence: None,
    watch: Callable[[Curves], None] | None = None,
    progress: Progress = silent,
) -> Learnt:
    """Fit coefficients of `ingredients` on `task` in the live network, starting at the mean of `start`.

    The network must hold one ingredient; its integer buffers stay. Raises NetworkError if an ingredient does not fit
    the network, or if the network cannot be fitted as requested.
    """
    module = live.network.module
    head = head_of(module, task.forward(), task.examples.batch(task.examples.order()[:1], task.device))
    folded = _last_linear(module, head) if settings.fold_temperature else []
    found = layers(module, per=settings.per, head=head)
    start_k = torch.tensor([float(ingredient in start) / len(start) for ingredient in ingredients], dtype=torch.float64)
    exact = [widened(ingredient) for ingredient in ingredients]
    with MixedNetwork(live, exact, found, resident=settings.resident, progress=progress) as network:
        say_where(network.residence)
        start_lk = start_k.repeat(len(found), 1)
        soup = learned(network, task, start_lk, settings, states=states, watch=watch, progress=progress)
        tensors = [network.names(layer.tensors) for layer in found]
        scaled = dict.fromkeys(network.names(folded), soup.beta)
    alpha_lk = soup.alpha_lk if torch.equal(soup.alpha_lk, start_lk) else summing_to_one(soup.alpha_lk)
    members, rows = without_absent(ingredients, alpha_lk)
    layered = Layered(members, rows, [layer.name for layer in found], tensors, scaled)
    return Learnt(soup, of_checkpoints(layered), network.residence)


def summing_to_one(alpha_lk: Tensor) -> Tensor:
    """Round coefficients to a grid too fine to change a weight. The largest of each row makes the sum exact."""
    on_grid_lk = (alpha_lk / GRID).round() * GRID
    rest_l1 = 1.0 - on_grid_lk.sum(dim=1, keepdim=True)
    return on_grid_lk.scatter_add(1, on_grid_lk.argmax(dim=1, keepdim=True), rest_l1)


def _last_linear(module: nn.Module, head: str | None) -> list[Tensor]:
    """Return weight and bias of the layer that a temperature can be folded into.

    Raises NetworkError if the logits are not the output of one linear layer, or it shares its weights.
    """
    kind = type(module).__name__
    if head is None:
        raise NetworkError(
            f"learned.fold_temperature: the logits of {kind} are not the output of one linear layer",
            hint="fold_temperature: false; the report says the temperature",
        )
    tensors: list[Tensor] = list(module.get_submodule(head).parameters())
    names: Mapping[str, Tensor] = module.state_dict(keep_vars=True)
    for tensor in tensors:
        shared = [name for name, other in names.items() if other is tensor]
        if len(shared) > 1:
            raise NetworkError(
                f"learned.fold_temperature: the last layer of {kind} shares {shared[0]!r} and {shared[1]!r}",
                hint="fold_temperature: false; the report says the temperature",
            )
    return tensors


def without_absent(members: Sequence[Checkpoint], alpha_lk: Tensor) -> tuple[list[Checkpoint], list[list[float]]]:
    """Remove members whose weight is 0 in every layer."""
    present = (alpha_lk != 0).any(dim=0)
    kept = [member for member, is_present in zip(members, present.tolist(), strict=True) if is_present]
    rows: list[list[float]] = alpha_lk[:, present].tolist()
    return kept, rows


def _mean_over_elements(alpha_lk: Sequence[Sequence[float]], sizes: Sequence[int]) -> tuple[float, ...]:
    """Return one weight for each member: the mean over layers by their elements. Equal rows are their own mean."""
    if all(row == alpha_lk[0] for row in alpha_lk):
        return tuple(alpha_lk[0])
    share_l = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    means_k: list[float] = (share_l @ torch.tensor(alpha_lk, dtype=torch.float64)).tolist()
    return tuple(means_k)
