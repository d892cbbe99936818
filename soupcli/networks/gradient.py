"""The live network as a function of its mixing coefficients: theta_t = sum_k alpha[l(t), k] theta_kt.

    with MixedNetwork(live, ingredients, layers) as network:
        network.mix(alpha_lk)                     # weights into the live network, in place
        loss.backward()                           # G = dL/dtheta, as in any network
        network.step(update)                      # dL/dalpha[l, k] = sum_{t in l} <G_t, theta_kt>, and the next mix

One network, one gradient, and pieces of the ingredients that pass through a few megabytes: the memory does not grow
with their number. A layer is written when its inner products are complete, and layers follow one another closely, so
that on disk what is read the second time was read a moment ago.

Letters in names: l layers, k ingredients, n elements of a piece, m of a block of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from soupcli import processes
from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.mixing import weights_file
from soupcli.errors import MixError, NetworkError
from soupcli.networks.batch_norm_gradient import statistics_of, through_statistics
from soupcli.networks.layers import Layer
from soupcli.networks.live import LiveNetwork
from soupcli.networks.offsets import HELD_BYTES, InMemory, OnDisk, Reader, Source, parts
from soupcli.networks.pieces import Piece, Span, divide
from soupcli.networks.residence import plan
from soupcli.networks.tasks import Tasks
from soupcli.progress import Progress, silent

WAVE_BYTES = HELD_BYTES  # of consecutive layers, at least, that move together where ingredients are on disk
THREADS = 4

# Which layers, and the gradients of their coefficients (l, k), to their next coefficients (l, k).
Update = Callable[[slice, Tensor], Tensor]


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

        Raises NetworkError where an ingredient does not fit the network and MixError where one holds a NaN.
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
        threads = min(THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self._reader = Reader(ingredients, self._device)
        varying = self._survey(progress)
        self._pieces = [self._divide([slot.name for slot in slots if slot.name in varying]) for slots in self._slots]
        self._statistics = statistics_of(live.network.module)
        leaves = ((name, self._leaf(slot)) for name, slot in self._places.items() if name in varying)
        self._leaves = {name: leaf for name, leaf in leaves if leaf is not None}
        sizes = [sum(piece.nbytes for piece in pieces) * len(ingredients) for pieces in self._pieces]
        gradients = sum(leaf.nbytes for leaf in self._leaves.values())
        self.residence = plan(sum(sizes), gradients, self._device, wanted=resident)
        self._waves = _waves(sizes, WAVE_BYTES if self.residence.where == "disk" else None)
        where = self.residence.where
        self._source: Source = OnDisk(self._reader) if where == "disk" else InMemory(self._reader, where)

    def __enter__(self) -> MixedNetwork:
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
        """What the checkpoints call these tensors of the network; a tied one has more than one name."""
        wanted = {id(tensor) for tensor in tensors}
        return [name for name, place in self._live.places(self.ingredients[0]).items() if id(place) in wanted]

    @torch.no_grad()
    def mix(self, alpha_lk: Tensor) -> None:
        """Weights by `alpha_lk` into the network. They depend on nothing else, not even in their last bits."""
        with Tasks(self._pool) as tasks:
            self._write(tasks, slice(0, len(self.layers)), alpha_lk)

    @torch.no_grad()
    def add_up(self, givers: int) -> None:
        """Of several processes: the gradients that the first `givers` of them hold are added, in their order.

        As one process adds up gradients of batches that follow one another, to the last bit.
        """
        if processes.count() == 1:
            return
        for name, leaf in self._leaves.items():
            own = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            leaf.grad = None
            for part in processes.from_each(own.to_dense() if own.is_sparse else own)[:givers]:
                total = self._gradients.get(name)
                self._gradients[name] = part.reshape(-1) if total is None else total.add_(part.reshape(-1))

    @torch.no_grad()
    def step(self, update: Update) -> None:
        """Takes the gradient that a backward pass left in the network; `update` makes coefficients of it, mixed next.

        Inner products are those with the offsets from the ingredients' mean. They differ from dL/dalpha by a constant
        for each layer, along which coefficients that sum to 1 do not move. Raises NetworkError where the gradient of a
        tensor is not finite.
        """
        self._take_gradients()
        with Tasks(self._pool) as tasks:
            for wave in self._waves:
                products = self._inner(tasks, wave)
                gradient_lk = torch.stack([_total(futures, len(self.ingredients)) for futures in products])
                if not bool(gradient_lk.isfinite().all()):
                    self._blame_gradient(wave)
                self._write(tasks, wave, update(wave, gradient_lk))
        self._gradients = {}

    def _take_gradients(self) -> None:
        for name, leaf in self._leaves.items():
            if leaf.grad is not None:
                self._gradients[name] = (leaf.grad.to_dense() if leaf.grad.is_sparse else leaf.grad).reshape(-1)
                leaf.grad = None

    def _leaf(self, slot: Slot) -> Tensor | None:
        """What autograd leaves the tensor's gradient in; None for buffers that no gradient goes to."""
        return slot.tensor if isinstance(slot.tensor, torch.nn.Parameter) else self._statistics.get(id(slot.tensor))

    def _inner(self, tasks: Tasks, wave: slice) -> list[list[Future[Tensor]]]:
        """Inner products of the gradient with all ingredients, for each layer of the wave and each of its pieces."""
        return [
            [
                tasks.submit(self._inner_products, piece)
                for piece in pieces
                if any(span.name in self._gradients for span in piece.spans)
            ]
            for pieces in self._pieces[wave]
        ]

    def _inner_products(self, piece: Piece) -> Tensor:
        """Tensor[K] in float64, on the CPU: products in the piece's wide dtype, blocks of them summed in float64."""
        gradient_n = torch.cat([self._gradient(span, piece.wide_dtype) for span in piece.spans])
        total_k = torch.zeros(len(self.ingredients), dtype=torch.float64, device=self._device)
        for part, _, offsets_km in self._source.blocks(piece, again=True):
            total_k += offsets_km @ gradient_n[part]
        return total_k.cpu()

    def _gradient(self, span: Span, dtype: torch.dtype) -> Tensor:
        if span.name not in self._gradients:
            return torch.zeros(span.numel, dtype=dtype, device=self._device)
        part = self._gradients[span.name][span.start : span.start + span.numel]
        return part.to(self._device).to(dtype)

    def _write(self, tasks: Tasks, wave: slice, alpha_lk: Tensor) -> None:
        for pieces, alpha_k in zip(self._pieces[wave], alpha_lk, strict=True):
            for piece in pieces:
                tasks.submit(self._write_piece, piece, alpha_k.to(self._device, piece.wide_dtype))

    @torch.no_grad()
    def _write_piece(self, piece: Piece, alpha_k: Tensor) -> None:
        mixed_n = torch.empty(piece.numel, dtype=piece.wide_dtype, device=self._device)
        for part, mean_m, offsets_km in self._source.blocks(piece):
            torch.addmv(mean_m, offsets_km.t(), alpha_k, out=mixed_n[part])
        self._put(piece, mixed_n)

    def _put(self, piece: Piece, values_n: Tensor) -> None:
        at = 0
        for span in piece.spans:
            flat = self._places[span.name].flat[span.start : span.start + span.numel]
            flat.copy_(values_n[at : at + span.numel].to(flat.dtype))
            at += span.numel
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # the buffers are this thread's to fill again

    def _divide(self, names: Sequence[str]) -> list[Piece]:
        return divide({name: self._places[name].tensor.dtype for name in names}, self.ingredients)

    def _survey(self, progress: Progress) -> set[str]:
        """Names of the tensors that are not the same in all ingredients; the others are in the network from now on."""
        pieces = self._divide(list(self._places))
        varying: set[str] = set()
        with Tasks(self._pool) as tasks:
            futures = [tasks.submit(self._survey_piece, piece) for piece in pieces]
            for done, future in enumerate(futures, 1):
                varying |= future.result()
                progress("comparing ingredients", done, len(futures))
        return varying

    @torch.no_grad()
    def _survey_piece(self, piece: Piece) -> set[str]:
        raw_kn = self._reader.raw(piece)
        varies_n = torch.empty(piece.numel, dtype=torch.bool)
        for part in parts(piece.numel):
            wide_km = raw_kn[:, part].to(piece.wide_dtype)
            if not bool(wide_km.isfinite().all()):
                _blame_ingredient(self.ingredients, piece, part.start, wide_km)
            varies_n[part] = (wide_km != wide_km[0]).any(dim=0)
        self._put(piece, raw_kn[0])
        by_span = torch.split(varies_n, [span.numel for span in piece.spans])
        return {span.name for span, part in zip(piece.spans, by_span, strict=True) if bool(part.any())}

    def _blame_gradient(self, wave: slice) -> None:
        """Raises NetworkError with the name of the tensor whose gradient is not finite."""
        for layer, slots in zip(self.layers[wave], self._slots[wave], strict=True):
            for slot in slots:
                gradient = self._gradients.get(slot.name)
                if gradient is not None and not bool(gradient.isfinite().all()):
                    raise NetworkError(
                        f"tensor {slot.name!r} (layer {layer.name}): its gradient is not finite",
                        hint="a smaller learned.lr, or weights and a network in float32 or bfloat16",
                    )
        raise NetworkError("the gradient of the coefficients overflows float64")


def _total(futures: Sequence[Future[Tensor]], ingredients: int) -> Tensor:
    """The sum of inner products in the order of the pieces: Tensor[K] in float64."""
    total_k = torch.zeros(ingredients, dtype=torch.float64)
    for future in futures:
        total_k += future.result()
    return total_k


def _slot(name: str, tensor: Tensor) -> Slot:
    """Raises NetworkError for complex tensors."""
    if tensor.is_complex():
        raise NetworkError(f"tensor {name!r} is {tensor.dtype}: coefficients are learned for real tensors alone")
    if not tensor.is_contiguous():
        tensor.data = tensor.data.contiguous()
    return Slot(tensor, tensor.detach().view(-1), name)


def _waves(sizes: Sequence[int], enough: int | None) -> list[slice]:
    """Consecutive layers of together at least `enough` bytes; all of them, where that is None."""
    if enough is None:
        return [slice(0, len(sizes))]
    waves, begin, total = [], 0, 0
    for end, size in enumerate(sizes, 1):
        total += size
        if total >= enough or end == len(sizes):
            waves.append(slice(begin, end))
            begin, total = end, 0
    return waves


def _blame_ingredient(ingredients: Sequence[Checkpoint], piece: Piece, begin: int, wide_km: Tensor) -> None:
    """Raises MixError with the first ingredient and tensor that hold a NaN or an infinity."""
    row, column = (int(index) for index in (~wide_km.isfinite()).nonzero()[0])
    position, value = begin + column, wide_km[row, column].item()
    for span in piece.spans:
        if position < span.numel:
            raise MixError(
                f"{weights_file(ingredients[row])}: tensor {span.name!r} holds {value} "
                f"at element {span.start + position}",
                hint="its training diverged: leave this ingredient out",
            )
        position -= span.numel
