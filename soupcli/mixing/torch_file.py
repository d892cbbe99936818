"""A soup as `torch.save` wrote its ingredients: a copy of the best one's file, with other bytes for what is averaged.

    file = write_copy(mixture, mixture.kept.files[0], path, CopyOptions(keep_state=True))
    file = write_plain(mixture, path, CopyOptions())

Everything else in the file stays: hyper-parameters, other objects, the order and sharing of storages. Optimizers and
schedulers are left out, unless `keep_state`, because they belong to one ingredient and not to the soup. A soup of
ingredients in another format becomes a plain state dict.
"""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import StoredTensor, read_stored
from soupcli.checkpoints.formats.nemo import is_nemo, weights_member
from soupcli.checkpoints.formats.torch_archives import ZIP_MAGIC, is_torch_file
from soupcli.checkpoints.formats.torch_save import read_header
from soupcli.errors import MixError, SoupFault
from soupcli.files.atomic import flush
from soupcli.files.reading import FileVersion, memory_of, read_bytes, sha256, write_at
from soupcli.late import torch
from soupcli.mixing.hash_stream import HashStream
from soupcli.mixing.mixture import mix
from soupcli.mixing.pieces import Mixer, pieces_of
from soupcli.mixing.soup_mark import add_mark, marks_among
from soupcli.mixing.torch_copy import (
    INSTEAD,
    CopyOptions,
    CopySource,
    TorchNotes,
    is_archive,
    moved_place,
    notes_on,
    plan_copy,
    source_of,
)
from soupcli.mixing.zip_records import ZipRecord, copy_records, correct_checksums, zip_records
from soupcli.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from soupcli.checkpoints.checkpoint import TensorSpec
    from soupcli.mixing.mixture import Mixture


class TorchFile(NamedTuple):
    """One written file: its SHA-256, and notes on the rest of the ingredient's file."""

    nbytes: int
    digest: str
    notes: TorchNotes


class _Skeleton(NamedTuple):
    """The new file before anything is averaged: the places of its tensors."""

    places: Mapping[str, StoredTensor]
    notes: TorchNotes


def write_copy(mixture: Mixture, file: FileVersion, path: Path, options: CopyOptions) -> TorchFile:
    """Write a copy of `file`, which holds tensors of the best ingredient, to `path`, with the soup's numbers in it.

    Raises MixError if a tensor cannot be mixed, or shares memory with another one in one ingredient and not in all.
    """
    skeleton = _copy(source_of(mixture, file), path, keep_state=options.keep_state)
    return _filled(mixture, path, skeleton, options)


def write_plain(mixture: Mixture, names: Mapping[str, str], path: Path, options: CopyOptions) -> TorchFile:
    """Write tensors of the soup to `path` as a plain state dict by torch.save, under the names that `names` gives them.

    Raises MixError if a tensor cannot be mixed.
    """
    return _filled(mixture, path, _plain(mixture, names, path), options)


def _filled(mixture: Mixture, path: Path, skeleton: _Skeleton, options: CopyOptions) -> TorchFile:
    _fill(mixture, path, skeleton, options)
    _check_shared(mixture, path, skeleton.places, options.overrides)
    flush(path)
    written = FileVersion.of(path)
    return TorchFile(written.size, sha256(written), skeleton.notes)


def _copy(source: CopySource, path: Path, *, keep_state: bool) -> _Skeleton:
    """Copies a file of the best ingredient without the state of its training."""
    file, places = source.file, source.places
    if not is_archive(file):
        shutil.copyfile(file.path, path)
        notes = notes_on(source, keep_state=keep_state) if is_torch_file(file) else TorchNotes()
        return _Skeleton(places, notes)
    plan = plan_copy(source, keep_state=keep_state)
    if plan.why:
        raise MixError(f"{file.path}: {plan.why}", hint=INSTEAD)
    old = marks_among(plan.records)
    if plan.pickle is None and not old:
        shutil.copyfile(file.path, path)
        return _Skeleton(places, plan.notes)
    contents, sizes = {plan.name: plan.pickle} if plan.pickle is not None else {}, {}
    for record in plan.records:
        before, now = plan.items.get(record.name, (None, None))
        if before is None or now is None or record.name in plan.left_out:
            continue
        if record.name in plan.converted:
            stored = bytearray(read_bytes(file, record.begin, record.size))
            numbers = torch.frombuffer(stored, dtype=before.torch) if stored else torch.empty(0)
            converted = numbers.to(now.torch)  # stays alive while its memory is read
            contents[record.name] = memory_of(converted).tobytes()
        else:
            sizes[record.name] = record.size // before.itemsize * now.itemsize
    begins = copy_records(file.path, plan.records, path, contents, plan.left_out | old, sizes)
    moved = {name: moved_place(place, plan, begins) for name, place in places.items()}
    return _Skeleton(moved, plan.notes)


def _records_of(file: FileVersion) -> list[ZipRecord]:
    """The records of an archive, or of the one in a file of NeMo's; none in other files, which have no checksums."""
    if is_archive(file):
        return zip_records(file.path)
    member = weights_member(file) if is_nemo(file) else None
    if member is None or read_bytes(file, member.offset, 4) != ZIP_MAGIC:
        return []
    return zip_records(file.path, member.offset, member.size)


def _plain(mixture: Mixture, names: Mapping[str, str], path: Path) -> _Skeleton:
    """A file of torch.save with room for the tensors: their bytes are not written, and take no memory."""
    specs = {names[name]: mixture.spec(name) for name in sorted(names)}
    state = OrderedDict((name, torch.empty(spec.shape, dtype=spec.dtype.torch)) for name, spec in specs.items())
    with torch.serialization.skip_data():
        torch.save(state, path)
    contents = read_header(FileVersion.of(path))
    if contents.specs != specs:
        raise SoupFault(f"{path}: torch.save wrote other tensors than it was given")
    places = {name: contents.places[stored] for name, stored in names.items()}
    return _Skeleton(places, TorchNotes())


def _fill(mixture: Mixture, path: Path, skeleton: _Skeleton, options: CopyOptions) -> None:
    """Mix each tensor to its place, mark the soup, then correct the checksums."""
    overrides, progress = options.overrides, options.progress
    mark = add_mark(path, options.mark.encode())
    records = _records_of(FileVersion.of(path))
    specs = {name: mixture.spec(name) for name in skeleton.places}
    dense = sorted((name for name in specs if skeleton.places[name].is_dense), key=lambda n: skeleton.places[n].offset)
    done, total = 0, sum(spec.nbytes for spec in specs.values())
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        offsets = {name: skeleton.places[name].offset for name in dense}
        mixed = [name for name in dense if name not in overrides]
        stream = HashStream() if options.hashes is None else HashStream.of(mixture, mixed, options.hashes)
        work = partial(Mixer, descriptor, offsets, options.device, stream)
        for nbytes in in_threads(work, pieces_of(mixture, dense, specs, overrides)):
            done += nbytes
            progress("mixing", done, total)
        for name in specs.keys() - set(dense):
            write_elements(descriptor, specs[name], skeleton.places[name], whole_tensor(mixture, name, overrides))
            done += specs[name].nbytes
            progress("mixing", done, total)
        stream.finish()
        write_at(descriptor, options.last_mark(), mark.offset)
        correct_checksums(descriptor, records)
    finally:
        os.close(descriptor)


def whole_tensor(mixture: Mixture, name: str, overrides: Mapping[str, Tensor]) -> Tensor:
    """Return the soup's tensor `name`, in its shape."""
    spec = mixture.spec(name)
    if name in overrides:
        return overrides[name].to(spec.dtype.torch).reshape(spec.shape)
    return mix(mixture, name, start=0, count=spec.numel).reshape(spec.shape)


def write_elements(descriptor: int, spec: TensorSpec, place: StoredTensor, tensor: Tensor) -> None:
    """Write a tensor to its place; if its elements are not in row-major order there, between what lies between them."""
    if tensor.numel() == 0:
        return
    if place.is_dense:
        dense = tensor.contiguous()  # it owns the memory
        write_at(descriptor, memory_of(dense), place.offset)
        return
    if place.conjugate:
        tensor = tensor.conj().resolve_conj()
    if place.negative:
        tensor = -tensor
    strides = place.strides or torch.empty(spec.shape, device="meta").stride()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(spec.shape, strides, strict=True))
    raw = bytearray(os.pread(descriptor, extent * spec.dtype.itemsize, place.offset))
    stored = torch.frombuffer(raw, dtype=spec.dtype.torch, count=extent)
    stored.as_strided(spec.shape, strides).copy_(tensor)
    write_at(descriptor, memory_of(stored), place.offset)


def _check_shared(
    mixture: Mixture, path: Path, places: Mapping[str, StoredTensor], overrides: Mapping[str, Tensor]
) -> None:
    """Raises MixError if tensors share memory in the file but have different means."""
    file = FileVersion.of(path)
    for name in sorted(_sharing({name: mixture.spec(name) for name in places}, places)):
        spec = mixture.spec(name)
        found = torch.empty(spec.numel, dtype=spec.dtype.torch)
        read_stored(spec, places[name]._replace(file=file), found, 0)
        wanted = whole_tensor(mixture, name, overrides).reshape(-1).contiguous()
        if memory_of(found).tobytes() != memory_of(wanted).tobytes():
            raise MixError(
                f"{mixture.kept.own.files[0].path}: tensor {name!r} shares its memory with another one there, and not "
                "in all ingredients: one place cannot hold both means",
                hint=INSTEAD,
            )


def _sharing(specs: Mapping[str, TensorSpec], places: Mapping[str, StoredTensor]) -> set[str]:
    """Return the tensors whose places in the file may overlap with others or with themselves."""
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
