"""The interface of every checkpoint, whatever its format: named tensors that are read one at a time.

checkpoint = open_checkpoint(Path("runs/a"))
spec = checkpoint.tensors["head.weight"]                   # TensorSpec(shape=(10, 64), dtype=Dtype.FLOAT32)
checkpoint.read("head.weight", torch.empty(spec.shape, dtype=spec.dtype.torch))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from soupcli.files.reading import FileVersion, memory_of, read_at
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.dtype import Dtype


class TensorSpec(NamedTuple):
    """Shape and dtype of one tensor, from a header."""

    shape: tuple[int, ...]
    dtype: Dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, stored densely."""
        return self.numel * self.dtype.itemsize


class Origin(NamedTuple):
    """What was taken out of the files. The report shows it; the key must be equal in all ingredients."""

    format: str
    key: str | None = None  # e.g. state_dict_ema; None: the weights lie there bare
    metrics: Mapping[str, float] = MappingProxyType({})  # what its trainer measured and wrote down
    notes: tuple[str, ...] = ()  # what a user should know about the choice of the weights
    averaged: bool = False  # whether the file says that these are averages over the training (EMA, SWA)
    revision: str | None = None  # the commit, of a model of the Hub
    progress: Mapping[str, float] = MappingProxyType({})  # the step and epoch that its trainer wrote into the file
    members: tuple[str, ...] = ()  # hashes of what a soup was mixed of, as its file says
    classes: Mapping[str, Sequence[str]] = MappingProxyType({})  # names by row that the file states, by their key in it
    lists: Mapping[str, Sequence[str]] = MappingProxyType({})  # all of its lists of different names, by their key
    inputs: Mapping[str, Sequence[str]] = MappingProxyType({})  # its lists of inputs, such as columns of a table
    settings: Mapping[str, str] = MappingProxyType({})  # of the network and its inputs, as text, by their key in it
    states: tuple[str, ...] = ()  # names of what lies among the tensors, which safetensors cannot hold


BARE = Origin("safetensors")


class Checkpoint(Protocol):
    """One ingredient of any format, opened by its header. It knows what it is made of."""

    @property
    def path(self) -> Path:
        """The path as the user gave it."""

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Shape and dtype of each tensor, from the header."""

    @property
    def files(self) -> tuple[FileVersion, ...]:
        """The files that hold the weights."""

    @property
    def side_files(self) -> tuple[Path, ...]:
        """Configuration and tokenizer files beside the weights, which define the network's inputs."""

    @property
    def side_folder(self) -> Path | None:
        """The folder whose other files a soup copies (see side_files.py), or None if there are none."""

    @property
    def folder(self) -> Path:
        """The folder with the configuration and the tokenizer of its network."""

    @property
    def origin(self) -> Origin:
        """Format, key and the trainer's own metrics."""

    @property
    def sources(self) -> Sequence[Checkpoint]:
        """Other checkpoints that some of its tensors come from, and theirs. They determine its content."""

    @property
    def members(self) -> Sequence[Checkpoint]:
        """The checkpoints that a group is the mean of; empty for a checkpoint in files."""

    @property
    def own(self) -> Checkpoint:
        """The checkpoint in `files`; not itself if some of its tensors are taken from another checkpoint."""

    @property
    def taken(self) -> Collection[str]:
        """The tensors that are taken from the first of `sources`."""

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter. Some of its tensors may come from a base or from another adapter."""

    @property
    def adapted(self) -> Collection[str]:
        """The weights that an adapter's factors change."""

    @property
    def inherited(self) -> Collection[str]:
        """Tensors of an adapter's base that the adapted network may lack, e.g. another head."""

    @property
    def places(self) -> Mapping[str, StoredTensor]:
        """The place of each tensor in the files; empty if tensors are computed when they are read."""

    @property
    def parts(self) -> Sequence[Component]:
        """The networks in its folder, each with its own file; empty if all weights are one network."""

    @property
    def constants(self) -> Container[str]:
        """Tensors that need not be finite, because they are not mixed or are equal in all ingredients."""

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """Read `out.numel()` elements of tensor `name`, from element `start` in row-major order, into `out`.

        `out` is contiguous, on the CPU and of the stored dtype. Raises CheckpointError if the file has changed
        since it was opened or ends early.
        """


class StoredTensor(NamedTuple):
    """The place of one tensor's elements: `file`, first byte, and strides in elements (None: dense, row-major).

    torch stores conjugates and negatives of complex tensors as the plain numbers and a bit. The numbers in the file
    must then be conjugated or negated.
    """

    file: FileVersion
    offset: int
    strides: tuple[int, ...] | None = None
    conjugate: bool = False
    negative: bool = False

    @property
    def is_dense(self) -> bool:
        """Whether the file holds the elements themselves, in row-major order."""
        return self.strides is None and not self.conjugate and not self.negative


NO_PLACES: Mapping[str, StoredTensor] = MappingProxyType({})  # of tensors that do not lie in a file as they are


class Component(NamedTuple):
    """One of the networks that a folder holds, e.g. a pipeline's component or a sentence encoder's dense layer.

    Names of its tensors begin with `prefix`, which its own file leaves out. A soup is written to the same
    places: see `part_of`.
    """

    prefix: str  # "2_Dense/"; "" for the network at the top of the folder
    file: str  # of its weights, relative to the checkpoint's folder: "2_Dense/model.safetensors", or the shards' index


@dataclass(frozen=True, eq=False)
class StoredCheckpoint:
    """A checkpoint whose tensors lie uncompressed in files: safetensors, shards, torch archives."""

    sources = ()
    members = ()
    taken = ()
    is_adapter = False
    adapted = ()
    inherited = ()

    path: Path
    tensors: Mapping[str, TensorSpec]
    places: Mapping[str, StoredTensor]
    files: tuple[FileVersion, ...]
    side_files: tuple[Path, ...] = ()
    origin: Origin = BARE
    parts: Sequence[Component] = ()  # if there are any, every tensor is in one of them
    constants: Container[str] = ()
    home: Path | None = None  # the folder of its files, if it is not `path`: a model of the Hub, or its cache
    side_folder: Path | None = None

    @property
    def own(self) -> Checkpoint:
        """See Checkpoint.own."""
        return self

    @cached_property  # each key of a score asks for that of every member
    def folder(self) -> Path:
        """See Checkpoint.folder."""
        if self.home is not None:
            return self.home
        return self.path if self.path.is_dir() else self.path.parent

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """See Checkpoint.read."""
        read_stored(self.tensors[name], self.places[name], out, start)


def part_of(parts: Sequence[Component], name: str) -> tuple[Component, str]:
    """Return the part that tensor `name` belongs to, and its name in the part's own file."""
    part = max((part for part in parts if name.startswith(part.prefix)), key=lambda part: len(part.prefix))
    return part, name.removeprefix(part.prefix)


def read_dense(checkpoint: Checkpoint, name: str, start: int, dtype: Dtype, out: memoryview) -> bool:
    """Fill `out` with the bytes from element `start` of a tensor on, across its end if necessary.

    Returns False, and reads nothing, unless the elements are stored unchanged in a file, in this dtype.
    """
    place = checkpoint.places.get(name)
    if place is None or not place.is_dense or checkpoint.tensors[name].dtype != dtype:
        return False
    read_at(place.file, place.offset + start * dtype.itemsize, out)
    return True


def in_file_order(checkpoint: Checkpoint, names: Iterable[str]) -> list[str]:
    """Return the names in the order of their tensors in the files, if that is known."""
    places = checkpoint.places
    if not places:
        return list(names)
    return sorted(names, key=lambda name: (str(places[name].file.path), places[name].offset))


def neighbours(checkpoints: Sequence[Checkpoint]) -> set[tuple[str, str]]:
    """Return pairs of tensors that follow one another without a gap in the files of every checkpoint.

    Both have one dtype, so one call of `read_dense` reads across them.
    """
    found: set[tuple[str, str]] | None = None
    for checkpoint in checkpoints:
        pairs = {pair for pair in pairwise(in_file_order(checkpoint, checkpoint.tensors)) if _touch(checkpoint, *pair)}
        found = pairs if found is None else found & pairs
    return found or set()


def runs(checkpoint: Checkpoint, names: Iterable[str], most: int) -> Iterator[list[str]]:
    """Yield the names in groups of at most `most`, which one call of `read_dense` reads across."""
    run: list[str] = []
    for name in in_file_order(checkpoint, names):
        if run and (len(run) == most or not _touch(checkpoint, run[-1], name)):
            yield run
            run = []
        run.append(name)
    if run:
        yield run


def _touch(checkpoint: Checkpoint, first: str, second: str) -> bool:
    if not checkpoint.places:
        return False
    spec, next_spec = checkpoint.tensors[first], checkpoint.tensors[second]
    place, next_place = checkpoint.places[first], checkpoint.places[second]
    follows = place.offset + spec.nbytes == next_place.offset and place.file == next_place.file
    return follows and place.is_dense and next_place.is_dense and spec.dtype is next_spec.dtype


def read_stored(spec: TensorSpec, place: StoredTensor, out: Tensor, start: int) -> None:
    """Read `out.numel()` elements, from element `start` in row-major order, of the tensor at `place`."""
    _read_elements(spec, place, out, start)
    if place.conjugate:
        out.copy_(out.conj().resolve_conj())
    if place.negative:
        out.neg_()


def _read_elements(spec: TensorSpec, place: StoredTensor, out: Tensor, start: int) -> None:
    if place.strides is None:
        read_at(place.file, place.offset + start * spec.dtype.itemsize, out)
        return
    if out.numel() == 0:
        return
    row = math.prod(spec.shape[1:])  # elements in one step along the first axis
    first, last = start // row, (start + out.numel() - 1) // row
    shape = (last - first + 1, *spec.shape[1:])
    extent = 1 + sum((size - 1) * stride for size, stride in zip(shape, place.strides, strict=True))
    stored = out.new_empty(extent)
    read_at(place.file, place.offset + first * place.strides[0] * spec.dtype.itemsize, stored)
    dense = stored.as_strided(shape, place.strides).reshape(-1)
    out.view(-1).copy_(dense[start - first * row :][: out.numel()])


def weights_file(checkpoint: Checkpoint) -> str:
    """Return the file to name in a message: the file of weights if there is only one, else the folder."""
    return str(checkpoint.files[0].path if len(checkpoint.files) == 1 else checkpoint.path)


def total_bytes(checkpoint: Checkpoint) -> int:
    """Return the size in bytes of the files that hold the weights."""
    return sum(file.size for file in checkpoint.files)


def read_part(checkpoint: Checkpoint, name: str, start: int, count: int) -> Tensor:
    """Return elements `start` to `start + count` of a stored tensor: Tensor[count] of the stored dtype."""
    part = torch.empty(count, dtype=checkpoint.tensors[name].dtype.torch)
    checkpoint.read(name, part, start=start)
    return part


def read_bits(checkpoint: Checkpoint, name: str, start: int, count: int) -> bytearray:
    """Return the bytes of such a part. Elements stored unchanged in a file are read without torch."""
    found = bytearray(count * checkpoint.tensors[name].dtype.itemsize)
    read_into(checkpoint, name, start, memoryview(found))
    return found


def read_into(checkpoint: Checkpoint, name: str, start: int, out: memoryview) -> None:
    """Fill `out` with the bytes of a tensor from element `start` on. See `read_bits`."""
    dtype = checkpoint.tensors[name].dtype
    if not read_dense(checkpoint, name, start, dtype, out):
        part = read_part(checkpoint, name, start, len(out) // dtype.itemsize)  # it owns the memory
        out[:] = memory_of(part)


Found = TypeVar("Found")


def remembered(most: int) -> Callable[[Callable[[Checkpoint], Found]], Callable[[Checkpoint], Found]]:
    """Let a function of a checkpoint remember what it found in the last `most`, each of which equals itself alone."""

    def remembering(function: Callable[[Checkpoint], Found]) -> Callable[[Checkpoint], Found]:
        kept: Any = lru_cache(maxsize=most)(function)
        found: Callable[[Checkpoint], Found] = kept
        return found

    return remembering
