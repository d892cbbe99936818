"""The live network as a function of its mixing coefficients: theta_t = sum_k alpha[l(t), k] theta_kt.

    with MixedNetwork(live, ingredients, layers) as network:
        network.mix(alpha_lk)                     # weights into the live network, in place
        loss.backward()                           # G = dL/dtheta, as in any network
        network.step(update)                      # dL/dalpha[l, k] = sum_{t in l} <G_t, theta_kt>, and the next mix

One network, one gradient, and pieces of the ingredients that pass through a few megabytes: the memory does not grow
with their number. Consecutive layers whose ingredients fit the memory that is held move together: on disk, what was
read for their inner products is written from there.

Letters in names: l layers, r those of a group, k ingredients, n elements of a piece, m of a block of it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

from soupcli import processes
from soupcli.checkpoints.checkpoint import Checkpoint, weights_file
from soupcli.checkpoints.compare.constants import way_out
from soupcli.checkpoints.dtype import Dtype
from soupcli.errors import MixError, NetworkError
from soupcli.late import no_grad, torch
from soupcli.networks.learned.offsets import HELD_BYTES, InMemory, OffsetSource, OnDisk, Reader, block_width
from soupcli.networks.learned.pieces import Group, OffsetPiece, Span, divide, grouped
from soupcli.networks.learned.residence import plan
from soupcli.progress import Progress, silent
from soupcli.threads import each

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.networks.learned.layers import Layer
    from soupcli.networks.live import LiveNetwork

THREADS = 4
SURVEYED = 16  # pieces that are compared between two reports of progress

Item = TypeVar("Item")
Result = TypeVar("Result")

# Which layers, and the gradients of their coefficients (l, k), to their next coefficients (l, k).
Update: TypeAlias = "Callable[[slice, Tensor], Tensor]"


class Slot(NamedTuple):
    """A tensor of the network, the same memory flat, and what the checkpoints call it."""

    tensor: Tensor
    flat: Tensor
    name: str


class MixedNetwork:
    """The live network with weights that are mixed by `alpha_lk`: float64 on the CPU, one row for each of `layers`."""

    def __init__(
        self,
        live: LiveNetwork,
        ingredients: Sequence[Checkpoint],
        layers: Sequence[Layer],
        *,
        resident: Literal["auto", "device", "host", "disk"] = "auto",
        progress: Progress = silent,
    ) -> None:
        """Reads every ingredient once: tensors that are the same in all are written for good and never read again.

        Raises NetworkError if an ingredient does not fit the network and MixError if one holds a NaN.
        """
        live.release()
        self._live = live
        self.layers = layers
        self.ingredients = ingredients
        self._device = torch.device("cpu") if live.device.type == "mps" else live.device  # mps knows no float64
        self._gradients: dict[str, Tensor] = {}
        named = [{id(place): name for name, place in live.places(ingredient).items()} for ingredient in ingredients]
        self._slots = [[_slot(named[0][id(tensor)], tensor) for tensor in layer.tensors] for layer in layers]
        self._places = {slot.name: slot for slots in self._slots for slot in slots}
        self._threads = min(THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))
        self._reader = Reader(ingredients, self._device)
        varying = self._survey(progress)
        from soupcli.networks.learned.batch_norm_gradient import statistics_of

        self._statistics = statistics_of(live.network.module)
        leaves = ((name, self._leaf(slot)) for name, slot in self._places.items() if name in varying)
        self._leaves = {name: leaf for name, leaf in leaves if leaf is not None}
        used = [
            {slot.name: Dtype.of(slot.tensor.dtype) for slot in slots if slot.name in varying} for slots in self._slots
        ]
        self._groups = grouped(used, ingredients, most=HELD_BYTES)
        needed = sum(piece.nbytes for group in self._groups for piece in group.pieces) * len(ingredients)
        gradients = sum(leaf.nbytes for leaf in self._leaves.values())
        self.residence = plan(needed, gradients, self._device, wanted=resident)
        where, pieces = self.residence.where, [group.pieces for group in self._groups]
        self._source: OffsetSource = OnDisk(self._reader, pieces) if where == "disk" else InMemory(self._reader, where)

    def __enter__(self) -> MixedNetwork:
        from soupcli.networks.learned.batch_norm_gradient import through_statistics

        for leaf in self._leaves.values():
            leaf.requires_grad_(True)
        self._hooks = through_statistics(self._live.network.module, self._statistics)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._hooks.close()
        for leaf in self._leaves.values():
            leaf.requires_grad_(False)
            leaf.grad = None
        self._live.forget()

    def names(self, tensors: Sequence[Tensor]) -> list[str]:
        """Return the names of these tensors in the checkpoints; a tied one has several."""
        wanted = {id(tensor) for tensor in tensors}
        return [name for name, place in self._live.places(self.ingredients[0]).items() if id(place) in wanted]

    @no_grad
    def mix(self, alpha_lk: Tensor) -> None:
        """Write the mixture of `alpha_lk` into the network. It depends on nothing else, to the last bit."""
        self._write(self._groups, alpha_lk)

    @no_grad
    def add_up(self, givers: int) -> None:
        """Add up the gradients of the first `givers` processes, in their order.

        The result equals that of one process with successive batches, to the last bit.
        """
        if processes.count() == 1:
            return
        for name, leaf in self._leaves.items():
            own = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            leaf.grad = None
            for part in processes.from_each(own.to_dense() if own.is_sparse else own)[:givers]:
                total = self._gradients.get(name)
                self._gradients[name] = part.reshape(-1) if total is None else total.add_(part.reshape(-1))

    @no_grad
    def step(self, update: Update) -> None:
        """Use the gradient that a backward pass left in the network. `update` maps it to the next coefficients.

        Inner products are those with the offsets from the first ingredient. They differ from dL/dalpha by a constant
        for each layer, along which coefficients that sum to 1 do not move. Raises NetworkError if the gradient of a
        tensor is not finite.
        """
        self._take_gradients()
        on_disk = self.residence.where == "disk"
        for wave in [[group] for group in self._groups] if on_disk else [self._groups]:
            rows = slice(wave[0].rows.start, wave[-1].rows.stop)
            gradient_lk = self._inner(wave)
            if not bool(gradient_lk.isfinite().all()):
                self._blame_gradient(rows)
            self._write(wave, update(rows, gradient_lk))
        self._gradients = {}

    def _take_gradients(self) -> None:
        for name, leaf in self._leaves.items():
            if leaf.grad is not None:
                self._gradients[name] = (leaf.grad.to_dense() if leaf.grad.is_sparse else leaf.grad).reshape(-1)
                leaf.grad = None

    def _leaf(self, slot: Slot) -> Tensor | None:
        """Return the tensor that autograd leaves the gradient in, or None for buffers without a gradient."""
        return slot.tensor if isinstance(slot.tensor, torch.nn.Parameter) else self._statistics.get(id(slot.tensor))

    def _inner(self, groups: Sequence[Group]) -> Tensor:
        """Inner products of the gradient with all ingredients, added up in the order of the pieces: float64 [l, K]."""
        work = [
            (group, piece)
            for group in groups
            for piece in group.pieces
            if any(span.name in self._gradients for span in piece.spans)
        ]
        total_lk = torch.zeros(sum(group.size for group in groups), len(self.ingredients), dtype=torch.float64)
        for (group, _), products_rk in zip(work, self._each(self._inner_products, work), strict=True):
            begin = group.rows.start - groups[0].rows.start
            total_lk[begin : begin + group.size] += products_rk
        return total_lk

    @no_grad
    def _inner_products(self, work: tuple[Group, OffsetPiece]) -> Tensor:
        """float64 [r, K] on the CPU: products in the piece's wide dtype, blocks of them summed in float64."""
        group, piece = work
        rows, sizes = self._blocks(group, piece)
        gradients = torch.split(self._joined_gradient(piece), sizes)
        blocks = zip(self._source.blocks(piece, sizes, again=True), gradients, strict=True)
        products_bj = torch.stack([torch.mv(offsets_jm, gradient_m) for (_, offsets_jm), gradient_m in blocks])
        total_rk = torch.zeros(group.size, len(self.ingredients), dtype=torch.float64)
        total_rk[:, 1:].index_add_(0, torch.tensor(rows), products_bj.cpu().double())
        return total_rk

    def _write(self, groups: Sequence[Group], alpha_lk: Tensor) -> None:
        """Weights of the groups' layers, which follow one another, by their rows of coefficients."""
        wide_lk = alpha_lk.to(self._device)
        of_dtype = {Dtype.FLOAT64: wide_lk, Dtype.FLOAT32: wide_lk.float()}
        first = groups[0].rows.start
        self._each(
            self._write_piece,
            [
                (group, piece, of_dtype[piece.wide_dtype][group.rows.start - first : group.rows.stop - first])
                for group in groups
                for piece in group.pieces
            ],
        )

    @no_grad
    def _write_piece(self, work: tuple[Group, OffsetPiece, Tensor]) -> None:
        group, piece, alpha_rk = work
        rows, sizes = self._blocks(group, piece)
        flats = [self._flat(span) for span in piece.spans]
        as_it_is = len(flats) == 1 and flats[0].dtype == piece.wide_dtype.torch and flats[0].device == self._device
        mixed_n = flats[0] if as_it_is else self._reader.scratch("mixed", piece.wide_dtype, piece.numel)
        outs = zip(torch.split(mixed_n, sizes), rows, strict=True)
        for (first_m, offsets_jm), (out_m, row) in zip(self._source.blocks(piece, sizes), outs, strict=True):
            torch.addmv(first_m, offsets_jm.t(), alpha_rk[row, 1:], out=out_m)
        if not as_it_is:
            torch._foreach_copy_(flats, torch.split(mixed_n, [span.numel for span in piece.spans]))
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # the buffers are this thread's to fill again

    def _blocks(self, group: Group, piece: OffsetPiece) -> tuple[list[int], list[int]]:
        """Rows and sizes of the blocks that a piece is worked on in."""
        blocks = group.blocks(piece, block_width(len(self.ingredients)))
        return [row for row, _ in blocks], [numel for _, numel in blocks]

    def _joined_gradient(self, piece: OffsetPiece) -> Tensor:
        """[n] in the wide dtype, on the device; 0 if there is none."""
        parts: list[Tensor] = []
        for span in piece.spans:
            whole = self._gradients.get(span.name)
            part = torch.zeros(span.numel) if whole is None else whole[span.start : span.start + span.numel]
            parts.append(part.to(self._device).to(piece.wide_dtype.torch))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _flat(self, span: Span) -> Tensor:
        """The memory of a span in the live network."""
        return self._places[span.name].flat[span.start : span.start + span.numel]

    def _each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        return each(self._pool, self._threads, work, items)

    def _survey(self, progress: Progress) -> set[str]:
        """Names of the tensors that are not the same in all ingredients; the others are in the network from now on."""
        pieces = divide({name: Dtype.of(slot.tensor.dtype) for name, slot in self._places.items()}, self.ingredients)
        varying: set[str] = set()
        for begin in range(0, len(pieces), SURVEYED):
            varying |= set().union(*self._each(self._survey_piece, pieces[begin : begin + SURVEYED]))
            progress("comparing ingredients", min(begin + SURVEYED, len(pieces)), len(pieces))
        return varying

    @no_grad
    def _survey_piece(self, piece: OffsetPiece) -> set[str]:
        raw_kn = self._reader.raw(piece)
        width = block_width(len(raw_kn))
        for begin, raw_km in zip(range(0, piece.numel, width), torch.split(raw_kn, width, dim=1), strict=True):
            wide_km = raw_km.to(piece.wide_dtype.torch)
            if not all(math.isfinite(end) for end in torch.stack(wide_km.aminmax()).tolist()):  # a NaN is both ends
                _blame_ingredient(self.ingredients, piece, begin, wide_km)
        varying: set[str] = set()
        for span, place in piece.placed():
            self._flat(span).copy_(raw_kn[0, place])
            first_n, *others_kn = (row_n[place].view(torch.uint8) for row_n in raw_kn)
            if not all(torch.equal(other_n, first_n) for other_n in others_kn):  # most differ from the second on
                varying.add(span.name)
        return varying

    def _blame_gradient(self, rows: slice) -> None:
        """Raises NetworkError with the name of the tensor whose gradient is not finite."""
        for layer, slots in zip(self.layers[rows], self._slots[rows], strict=True):
            for slot in slots:
                gradient = self._gradients.get(slot.name)
                if gradient is not None and not bool(gradient.isfinite().all()):
                    raise NetworkError(
                        f"tensor {slot.name!r} (layer {layer.name}): its gradient is not finite",
                        hint="a smaller learned.lr, or weights and a network in float32 or bfloat16",
                    )
        raise NetworkError("the gradient of the coefficients overflows float64")


def _slot(name: str, tensor: Tensor) -> Slot:
    """Raises NetworkError for complex tensors."""
    if tensor.is_complex():
        raise NetworkError(f"tensor {name!r} is {tensor.dtype}: coefficients are learned for real tensors alone")
    if not tensor.is_contiguous():
        tensor.data = tensor.data.contiguous()
    return Slot(tensor, tensor.detach().view(-1), name)


def _blame_ingredient(ingredients: Sequence[Checkpoint], piece: OffsetPiece, begin: int, wide_km: Tensor) -> None:
    """Raises MixError with the first ingredient and tensor that hold a NaN or an infinity and may not."""
    for span, place in piece.placed():
        first = max(place.start - begin, 0)
        part_km = wide_km[:, first : max(place.stop - begin, 0)]
        bad = (~part_km.isfinite()).nonzero()
        if not len(bad):
            continue
        row, column = (int(index) for index in bad[0])
        same = all(torch.equal(part_m.view(torch.uint8), part_km[0].view(torch.uint8)) for part_m in part_km)
        if same and span.name in ingredients[row].constants:
            continue
        raise MixError(
            f"{weights_file(ingredients[row])}: tensor {span.name!r} holds {part_km[row, column].item()} "
            f"at element {span.start + begin + first + column - place.start}",
            hint=way_out(ingredients[row], span.name),
        )
