"""A soup as `torch.save` wrote its ingredients: a copy of the best one's file, with other bytes for what is averaged.

    why_not_copied(mixture)                                # "" or what speaks against it
    file = write_torch(mixture, folder, keep_state=False)

So whatever else is in the file stays: hyper-parameters, other objects, the order and sharing of storages. Optimizers
and schedulers are left out, unless `keep_state`: they are of one ingredient, and not of the soup.
A soup of other ingredients becomes a plain state dict.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from soupcli.checkpoints.checkpoint import StoredTensor, read_stored
from soupcli.checkpoints.formats.torch_archives import ZIP_MAGIC
from soupcli.checkpoints.formats.torch_save import read_header
from soupcli.checkpoints.formats.training_state import NAMES as TRAINING
from soupcli.checkpoints.tensor_filter import FilteredCheckpoint
from soupcli.errors import MixError, OutputError, SoupFault
from soupcli.files.atomic import flush
from soupcli.files.reading import FileVersion, hash_of_files, memory_of, read_bytes, sha256, write_at
from soupcli.mixing.average import CPU
from soupcli.mixing.mixture import mix
from soupcli.mixing.pickle_entries import Entries, storages_beside
from soupcli.mixing.pieces import Mixer, pieces_of
from soupcli.mixing.soup_folder import MAKE_ROOM, check_space
from soupcli.mixing.zip_records import ZipRecord, copy_records, correct_checksums, zip_records
from soupcli.progress import Progress, silent
from soupcli.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.mixing.mixture import Mixture

PLAIN = "pytorch_model.bin"
MAX_PICKLE = 200_000_000
INSTEAD = "--format safetensors writes the tensors alone"


class TorchNotes(NamedTuple):
    """Entries of the ingredient's file that were left out, and that stayed although they hold tensors."""

    dropped: tuple[str, ...] = ()
    as_in_ingredient: tuple[str, ...] = ()


class TorchFile(NamedTuple):
    """One file of the soup: hashes, and what became of the rest of the ingredient's."""

    name: str
    nbytes: int
    digest: str
    notes: TorchNotes


class _Skeleton(NamedTuple):
    """The new file before anything is averaged: where its tensors lie, and its records."""

    places: Mapping[str, StoredTensor]
    records: Sequence[ZipRecord]
    notes: TorchNotes


def own(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint itself, if some of its tensors were taken from another one."""
    return checkpoint.checkpoint if isinstance(checkpoint, FilteredCheckpoint) else checkpoint


def is_torch_checkpoint(checkpoint: Checkpoint) -> bool:
    """Whether it lies in one file of torch.save."""
    kept = own(checkpoint)
    if len(kept.files) != 1 or not kept.places or kept.is_adapter:
        return False
    head = read_bytes(kept.files[0], 0, 8)
    return head.startswith(ZIP_MAGIC) or head[:1] == b"\x80"


def why_not_copied(mixture: Mixture) -> str:
    """What speaks against a copy of the best ingredient's file with other numbers; "" if nothing does."""
    kept = own(mixture.kept)
    if not is_torch_checkpoint(kept):
        return f"{kept.path}: is not one file of torch.save"
    file = kept.files[0].path
    for name in mixture.kept.tensors:
        spec, stored = mixture.spec(name), kept.tensors.get(name)
        if stored is None or stored.shape != spec.shape:
            return f"{file}: tensor {name!r} is another one in the soup"
        if stored.dtype != spec.dtype:
            return f"{file}: tensor {name!r} has dtype {stored.dtype}, in the soup {spec.dtype}"
    return ""


def write_torch(
    mixture: Mixture,
    folder: Path,
    *,
    keep_state: bool = False,
    overrides: Mapping[str, Tensor] | None = None,
    device: torch.device = CPU,
    progress: Progress = silent,
) -> TorchFile:
    """Mix every tensor of `mixture` into one file of torch.save in `folder`.

    `overrides` replaces tensors by name. Raises MixError if a tensor cannot be mixed, or shares memory with another
    one in one ingredient and not in all; OutputError if the disk is full.
    """
    copied = is_torch_checkpoint(mixture.kept)
    if copied and (why := why_not_copied(mixture)):
        raise MixError(why, hint=INSTEAD)
    path = folder / (_name(mixture) if copied else PLAIN)
    needed = mixture.kept.files[0].size if copied else sum(mixture.spec(n).nbytes for n in mixture.kept.tensors)
    check_space(folder.parent, needed)
    with _on_full_disk(folder, needed):
        skeleton = _copy(mixture, path, keep_state=keep_state) if copied else _plain(mixture, path)
        _fill(mixture, path, skeleton, overrides or {}, device, progress)
        _check_shared(mixture, path, skeleton.places, overrides or {})
        flush(path)
    file = FileVersion.of(path)
    return TorchFile(path.name, file.size, sha256(file), skeleton.notes)


def hash_of(file: TorchFile) -> str:
    """As the report names it."""
    return hash_of_files({file.name: file.digest})


@contextmanager
def _on_full_disk(folder: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        said = f"{folder.parent}: {cause.strerror or cause}: the soup needs {needed} bytes"
        raise OutputError(said, hint=MAKE_ROOM) from cause


def _name(mixture: Mixture) -> str:
    """The ingredients' own, if all agree; else one with their ending."""
    names = {own(member).files[0].path.name for member in (*mixture.members, mixture.kept) if own(member).files}
    if len(names) == 1:
        return names.pop()
    kept = own(mixture.kept).files[0].path.name
    ending = next((end for end in (".pth.tar", ".pt.tar") if kept.endswith(end)), Path(kept).suffix)
    return f"model{ending or '.pt'}"


def _copy(mixture: Mixture, path: Path, *, keep_state: bool) -> _Skeleton:
    """A copy of the best ingredient's file, without the state of its training."""
    kept = own(mixture.kept)
    [file] = kept.files
    if read_bytes(file, 0, 4) != ZIP_MAGIC:  # before torch 1.6: no archive, and no checksums
        shutil.copyfile(file.path, path)
        return _Skeleton({name: place._replace(file=file) for name, place in kept.places.items()}, (), TorchNotes())
    try:
        records = zip_records(file.path)
    except (zipfile.BadZipFile, ValueError) as cause:
        raise MixError(f"{file.path}: a broken zip archive: {cause}", hint=INSTEAD) from cause
    pickle = next(record for record in records if record.name.endswith("data.pkl"))
    data = read_bytes(file, pickle.begin, pickle.size)
    entries = Entries.of(data) if pickle.size <= MAX_PICKLE else None
    dropped = [] if entries is None or keep_state else [entry for entry in entries.names if TRAINING.fullmatch(entry)]
    rest = entries.without(dropped) if entries is not None and dropped else None
    others = _others(entries, kept.origin.key, dropped)
    if entries is None or rest is None:
        shutil.copyfile(file.path, path)
        return _Skeleton(kept.places, records, TorchNotes((), (*others, *dropped)))
    unused = _storages(entries, set(dropped)) - _storages(entries, set(entries.names) - set(dropped))
    stem = pickle.name.removesuffix("data.pkl")
    left_out = {f"{stem}data/{key}" for key in unused}
    begins = copy_records(file.path, records, path, {pickle.name: rest}, left_out)
    places = {name: _moved(place, records, begins) for name, place in kept.places.items()}
    return _Skeleton(places, zip_records(path), TorchNotes(tuple(dropped), others))


def _others(entries: Entries | None, key: str | None, dropped: Sequence[str]) -> tuple[str, ...]:
    """Other entries with tensors: they stay as the best ingredient has them."""
    if entries is None or key is None:
        return ()
    return tuple(sorted(storages_beside(entries, {key.partition(".")[0], *dropped})))


def _storages(entries: Entries, names: set[str]) -> set[str]:
    return {key for entry in entries.entries if entry.name in names for key in entry.storages}


def _moved(place: StoredTensor, records: Sequence[ZipRecord], begins: Mapping[str, int]) -> StoredTensor:
    """Where the tensor lies in the new archive."""
    record = max((one for one in records if one.begin <= place.offset), key=lambda one: (one.begin, one.size))
    return place._replace(offset=begins[record.name] + place.offset - record.begin)


def _plain(mixture: Mixture, path: Path) -> _Skeleton:
    """A file of torch.save with room for the tensors: their bytes are not written, and take no memory."""
    specs = {name: mixture.spec(name) for name in sorted(mixture.kept.tensors)}
    state = OrderedDict((name, torch.empty(spec.shape, dtype=spec.dtype)) for name, spec in specs.items())
    with torch.serialization.skip_data():
        torch.save(state, path)
    contents = read_header(FileVersion.of(path))
    if contents.specs != specs:
        raise SoupFault(f"{path}: torch.save wrote other tensors than it was given")
    return _Skeleton(contents.places, zip_records(path), TorchNotes())


def _fill(
    mixture: Mixture,
    path: Path,
    skeleton: _Skeleton,
    overrides: Mapping[str, Tensor],
    device: torch.device,
    progress: Progress,
) -> None:
    """Mix each tensor to its place, then correct the checksums."""
    specs = {name: mixture.spec(name) for name in mixture.kept.tensors}
    dense = sorted((name for name in specs if skeleton.places[name].is_dense), key=lambda n: skeleton.places[n].offset)
    done, total = 0, sum(spec.nbytes for spec in specs.values())
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        work = partial(Mixer, descriptor, {name: skeleton.places[name].offset for name in dense}, device)
        for nbytes in in_threads(work, pieces_of(mixture, dense, specs, overrides)):
            done += nbytes
            progress("mixing", done, total)
        for name in specs.keys() - set(dense):
            _write_strided(descriptor, specs[name], skeleton.places[name], _tensor(mixture, name, overrides))
            done += specs[name].nbytes
            progress("mixing", done, total)
        correct_checksums(descriptor, skeleton.records)
    finally:
        os.close(descriptor)


def _tensor(mixture: Mixture, name: str, overrides: Mapping[str, Tensor]) -> Tensor:
    spec = mixture.spec(name)
    if name in overrides:
        return overrides[name].to(spec.dtype).reshape(spec.shape)
    return mix(mixture, name, start=0, count=spec.numel).reshape(spec.shape)


def _write_strided(descriptor: int, spec: TensorSpec, place: StoredTensor, tensor: Tensor) -> None:
    """Write a tensor whose elements do not lie in row-major order, between what lies between them."""
    if tensor.numel() == 0:
        return
    if place.conjugate:
        tensor = tensor.conj().resolve_conj()
    if place.negative:
        tensor = -tensor
    strides = place.strides or torch.empty(spec.shape, device="meta").stride()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(spec.shape, strides, strict=True))
    raw = bytearray(os.pread(descriptor, extent * spec.dtype.itemsize, place.offset))
    stored = torch.frombuffer(raw, dtype=spec.dtype, count=extent)
    stored.as_strided(spec.shape, strides).copy_(tensor)
    write_at(descriptor, memory_of(stored), place.offset)


def _check_shared(
    mixture: Mixture, path: Path, places: Mapping[str, StoredTensor], overrides: Mapping[str, Tensor]
) -> None:
    """Raises MixError if tensors share memory in the file, and are not the same mean there."""
    file = FileVersion.of(path)
    for name in sorted(_sharing({name: mixture.spec(name) for name in mixture.kept.tensors}, places)):
        spec = mixture.spec(name)
        found = torch.empty(spec.numel, dtype=spec.dtype)
        read_stored(spec, places[name]._replace(file=file), found, 0)
        wanted = _tensor(mixture, name, overrides).reshape(-1)
        if memory_of(found).tobytes() != memory_of(wanted.contiguous()).tobytes():
            raise MixError(
                f"{own(mixture.kept).files[0].path}: tensor {name!r} shares its memory with another one there, and not "
                "in all ingredients: one place cannot hold both means",
                hint=INSTEAD,
            )


def _sharing(specs: Mapping[str, TensorSpec], places: Mapping[str, StoredTensor]) -> set[str]:
    """Tensors whose places in the file may overlap, with others or with themselves."""
    spans = []
    for name, spec in specs.items():
        strides, extent = places[name].strides, spec.numel
        if strides is not None and spec.numel:
            extent = 1 + sum((size - 1) * stride for size, stride in zip(spec.shape, strides, strict=True))
        if spec.numel:
            begin = places[name].offset
            spans.append((begin, begin + extent * spec.dtype.itemsize, name, extent < spec.numel))
    found = {name for _, _, name, repeats in spans if repeats}
    end, last = -1, ""
    for begin, stop, name, _ in sorted(spans):
        if begin < end:
            found |= {name, last}
        if stop > end:
            end, last = stop, name
    return found
