"""A soup as `torch.save` wrote its ingredients: a copy of the best one's file, with other bytes for what is averaged.

    file = write_copy(mixture, mixture.kept.files[0], path, CopyOptions(keep_state=True))
    file = write_plain(mixture, path, CopyOptions())

So whatever else is in the file stays: hyper-parameters, other objects, the order and sharing of storages. Optimizers
and schedulers are left out, unless `keep_state`: they are of one ingredient, and not of the soup.
A soup of other ingredients becomes a plain state dict.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import StoredTensor, read_stored
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.formats.nemo import is_nemo, weights_member
from soupcli.checkpoints.formats.torch_archives import ZIP_MAGIC
from soupcli.checkpoints.formats.torch_save import read_header
from soupcli.checkpoints.formats.training_state import NAMES as TRAINING
from soupcli.errors import MixError, SoupFault
from soupcli.files.atomic import flush
from soupcli.files.reading import FileVersion, memory_of, read_bytes, sha256, write_at
from soupcli.late import torch
from soupcli.mixing.mixture import mix
from soupcli.mixing.pickle_entries import Entries, storages_beside, with_classes
from soupcli.mixing.pieces import Mixer, pieces_of
from soupcli.mixing.zip_records import ZipRecord, copy_records, correct_checksums, zip_records
from soupcli.progress import Progress, silent
from soupcli.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from soupcli.checkpoints.checkpoint import TensorSpec
    from soupcli.mixing.mixture import Mixture

MAX_PICKLE = 200_000_000
# Dtypes whose storages have a class of their own in the pickle.
STORAGES = {
    Dtype.FLOAT64: "DoubleStorage",
    Dtype.FLOAT32: "FloatStorage",
    Dtype.FLOAT16: "HalfStorage",
    Dtype.BFLOAT16: "BFloat16Storage",
}
KNOWN = frozenset(STORAGES)
INSTEAD = "--format safetensors writes the tensors alone"


class TorchNotes(NamedTuple):
    """Entries of the ingredient's file that were left out, and that stayed although they hold tensors."""

    dropped: tuple[str, ...] = ()
    as_in_ingredient: tuple[str, ...] = ()


class TorchFile(NamedTuple):
    """One written file: its SHA-256, and what became of the rest of the ingredient's."""

    nbytes: int
    digest: str
    notes: TorchNotes


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """How a file is copied and filled. `overrides` replaces tensors by name."""

    keep_state: bool = False
    overrides: Mapping[str, Tensor] = field(default_factory=dict)
    device: torch.device | None = None
    progress: Progress = silent


class _Skeleton(NamedTuple):
    """The new file before anything is averaged: where its tensors lie, and its records."""

    places: Mapping[str, StoredTensor]
    records: Sequence[ZipRecord]
    notes: TorchNotes


def is_copied(file: FileVersion) -> bool:
    """Whether a copy of the file can be filled with other numbers: it is of torch.save, or NeMo's with such a one."""
    head = read_bytes(file, 0, 8)
    return head.startswith(ZIP_MAGIC) or head[:1] == b"\x80" or is_nemo(file)


def is_archive(file: FileVersion) -> bool:
    """Whether the file is an archive of torch.save, as since version 1.6."""
    return read_bytes(file, 0, 4) == ZIP_MAGIC


def write_copy(mixture: Mixture, file: FileVersion, path: Path, options: CopyOptions) -> TorchFile:
    """Write a copy of `file`, which holds tensors of the best ingredient, to `path`, with the soup's numbers in it.

    Raises MixError if a tensor cannot be mixed, or shares memory with another one in one ingredient and not in all.
    """
    kept = mixture.kept.own
    places = {name: kept.places[name] for name in mixture.kept.tensors if kept.places[name].file == file}
    casts = _casts(mixture, places)
    skeleton = _copy(file, places, kept.origin.key, casts, path, keep_state=options.keep_state)
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


class _Plan(NamedTuple):
    """How an archive is copied. `pickle` is None if all of it is copied as it is."""

    records: Sequence[ZipRecord]
    name: str  # of the record with the pickle
    pickle: bytes | None
    left_out: frozenset[str]  # records
    items: Mapping[str, tuple[Dtype, Dtype]]  # record of a storage of another dtype -> its dtype before and now
    notes: TorchNotes
    converted: frozenset[str] = frozenset()  # records of the network's own that no name leads to, e.g. YOLO's strides
    why: str = ""  # it cannot be copied so


def why_not_cast(mixture: Mixture, file: FileVersion, options: CopyOptions) -> str:
    """What speaks against a copy of `file` in which tensors have other dtypes; "" if nothing does."""
    kept = mixture.kept.own
    places = {name: kept.places[name] for name in mixture.kept.tensors if kept.places[name].file == file}
    casts = _casts(mixture, places)
    return _planned(file, places, kept.origin.key, casts, keep_state=options.keep_state).why if casts else ""


def _casts(mixture: Mixture, places: Mapping[str, StoredTensor]) -> dict[str, tuple[Dtype, Dtype]]:
    """Tensor -> its dtype in the best ingredient and in the soup, if these differ."""
    stored = mixture.kept.own.tensors
    pairs = {name: (stored[name].dtype, mixture.spec(name).dtype) for name in places}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _planned(
    file: FileVersion,
    places: Mapping[str, StoredTensor],
    key: str | None,
    casts: Mapping[str, tuple[Dtype, Dtype]],
    *,
    keep_state: bool,
) -> _Plan:
    try:
        records = zip_records(file.path)
    except (zipfile.BadZipFile, ValueError) as cause:
        raise MixError(f"{file.path}: a broken zip archive: {cause}", hint=INSTEAD) from cause
    pickle = next(record for record in records if record.name.endswith("data.pkl"))
    stem = pickle.name.removesuffix("data.pkl") + "data/"
    mixed = {name: _record_of(place, records).name.removeprefix(stem) for name, place in places.items()}
    data = read_bytes(file, pickle.begin, pickle.size)
    entries = Entries.of(data) if pickle.size <= MAX_PICKLE else None
    dropped = _training_state(entries, set(mixed.values())) if entries is not None and not keep_state else []
    rest = entries.without(dropped) if entries is not None and dropped else data
    notes = TorchNotes(tuple(dropped) if rest is not None else (), _others(entries, key, dropped))
    if rest is None:
        notes = notes._replace(as_in_ingredient=(*notes.as_in_ingredient, *dropped))
    plan = _Plan(records, pickle.name, rest if dropped else None, frozenset(), {}, notes)
    if entries is None:
        return plan._replace(why="its pickle is not understood" if casts else "")
    left = _storages(entries, set(entries.names) - set(notes.dropped))
    plan = plan._replace(left_out=frozenset(f"{stem}{one}" for one in _storages(entries, set(notes.dropped)) - left))
    if not casts:
        return plan
    wanted = {mixed[name]: pair for name, pair in casts.items()}
    classes = {f"torch {STORAGES[old]}": f"torch {STORAGES[new]}" for old, new in casts.values() if {old, new} <= KNOWN}
    others = {one for one in left - wanted.keys() if entries.classes.get(one) in classes}
    unknown = len(classes) < len(set(casts.values())) or any(entries.classes.get(one) not in classes for one in wanted)
    if unknown:
        return plan._replace(why="its storages are of a class that is not known")
    own = _storages(entries, {key.partition(".")[0]} if key is not None else set())
    named = set(mixed.values())
    if not others <= own - named or {mixed[name] for name in places.keys() - casts.keys()} & wanted.keys():
        return plan._replace(why="other tensors in it have the same dtype, and keep it")
    pairs = {f"torch {STORAGES[old]}": (old, new) for old, new in casts.values()}
    items = {f"{stem}{one}": pair for one, pair in wanted.items()}
    items |= {f"{stem}{one}": pairs[entries.classes[one]] for one in others}
    pickle_now = with_classes(rest if rest is not None else data, classes)
    return plan._replace(pickle=pickle_now, items=items, converted=frozenset(f"{stem}{one}" for one in others))


def _copy(
    file: FileVersion,
    places: Mapping[str, StoredTensor],
    key: str | None,
    casts: Mapping[str, tuple[Dtype, Dtype]],
    path: Path,
    *,
    keep_state: bool,
) -> _Skeleton:
    """A copy of a file of the best ingredient, without the state of its training."""
    if not is_archive(file):
        shutil.copyfile(file.path, path)
        return _Skeleton(places, _records_inside(file), TorchNotes())
    plan = _planned(file, places, key, casts, keep_state=keep_state)
    if plan.why:
        raise MixError(f"{file.path}: {plan.why}", hint=INSTEAD)
    if plan.pickle is None:
        shutil.copyfile(file.path, path)
        return _Skeleton(places, plan.records, plan.notes)
    contents, sizes = {plan.name: plan.pickle}, {}
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
    begins = copy_records(file.path, plan.records, path, contents, plan.left_out, sizes)
    moved = {name: _moved(place, plan, begins) for name, place in places.items()}
    return _Skeleton(moved, zip_records(path), plan.notes)


def _records_inside(file: FileVersion) -> list[ZipRecord]:
    """The records of the archive in a file of NeMo's; none in a file from before torch 1.6, which has no checksums."""
    member = weights_member(file) if is_nemo(file) else None
    if member is None or read_bytes(file, member.offset, 4) != ZIP_MAGIC:
        return []
    return zip_records(file.path, member.offset, member.size)


def _training_state(entries: Entries, mixed: set[str]) -> list[str]:
    """Entries that hold the state of a training: none of the storages that are `mixed` is in them."""
    named = [entry for entry in entries.entries if TRAINING.fullmatch(entry.name) and not entry.is_none]
    return [entry.name for entry in named if not entry.storages & mixed]


def _others(entries: Entries | None, key: str | None, dropped: Sequence[str]) -> tuple[str, ...]:
    """Other entries with tensors: they stay as the best ingredient has them."""
    if entries is None or key is None:
        return ()
    return tuple(sorted(storages_beside(entries, {key.partition(".")[0], *dropped})))


def _storages(entries: Entries, names: set[str]) -> set[str]:
    return {key for entry in entries.entries if entry.name in names for key in entry.storages}


def _record_of(place: StoredTensor, records: Sequence[ZipRecord]) -> ZipRecord:
    return max((one for one in records if one.begin <= place.offset), key=lambda one: (one.begin, one.size))


def _moved(place: StoredTensor, plan: _Plan, begins: Mapping[str, int]) -> StoredTensor:
    """Where the tensor lies in the new archive."""
    record = _record_of(place, plan.records)
    inside = place.offset - record.begin
    if record.name in plan.items:
        before, now = plan.items[record.name]
        inside = inside // before.itemsize * now.itemsize
    return place._replace(offset=begins[record.name] + inside)


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
    return _Skeleton(places, zip_records(path), TorchNotes())


def _fill(mixture: Mixture, path: Path, skeleton: _Skeleton, options: CopyOptions) -> None:
    """Mix each tensor to its place, then correct the checksums."""
    overrides, progress = options.overrides, options.progress
    specs = {name: mixture.spec(name) for name in skeleton.places}
    dense = sorted((name for name in specs if skeleton.places[name].is_dense), key=lambda n: skeleton.places[n].offset)
    done, total = 0, sum(spec.nbytes for spec in specs.values())
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        work = partial(Mixer, descriptor, {name: skeleton.places[name].offset for name in dense}, options.device)
        for nbytes in in_threads(work, pieces_of(mixture, dense, specs, overrides)):
            done += nbytes
            progress("mixing", done, total)
        for name in specs.keys() - set(dense):
            write_elements(descriptor, specs[name], skeleton.places[name], whole_tensor(mixture, name, overrides))
            done += specs[name].nbytes
            progress("mixing", done, total)
        correct_checksums(descriptor, skeleton.records)
    finally:
        os.close(descriptor)


def whole_tensor(mixture: Mixture, name: str, overrides: Mapping[str, Tensor]) -> Tensor:
    """The soup's tensor `name`, in its shape."""
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
    """Raises MixError if tensors share memory in the file, and are not the same mean there."""
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
