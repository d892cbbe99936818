"""Plans the copy of a file of `torch.save`: which records stay, which are converted, or why it cannot be copied."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.formats.beside_network import leads_to
from soupcli.checkpoints.formats.nemo import is_nemo
from soupcli.checkpoints.formats.torch_archives import ZIP_MAGIC
from soupcli.checkpoints.formats.torch_save import beside_network
from soupcli.errors import MixError, SoupFault
from soupcli.files.reading import FileVersion, read_bytes
from soupcli.mixing.pickle_entries import Entries, with_classes
from soupcli.mixing.zip_records import ZipRecord, zip_records
from soupcli.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from soupcli.checkpoints.checkpoint import StoredTensor
    from soupcli.checkpoints.hashes import ContentHashes
    from soupcli.late import torch
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
    """Entries of the ingredient's file that were left out, and those with tensors or training state that stayed."""

    dropped: tuple[str, ...] = ()
    as_in_ingredient: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """The options of a copy. `overrides` replaces tensors by name.

    `hashes` learns those of the ingredients from the bytes that are mixed. `mark` names the soup's members in the file.
    `final_mark` is called when all is mixed, and returns text of the same length, with hashes that were unknown before.
    """

    keep_state: bool = False
    overrides: Mapping[str, Tensor] = field(default_factory=dict)
    device: torch.device | None = None
    hashes: ContentHashes | None = None
    progress: Progress = silent
    mark: str = ""
    final_mark: Callable[[], str] | None = None

    def last_mark(self) -> bytes:
        """Return the final text of the mark."""
        mark = self.mark if self.final_mark is None else self.final_mark()
        if len(mark) != len(self.mark):
            raise SoupFault(f"the mark of the soup has {len(mark)} letters, {len(self.mark)} were planned")
        return mark.encode()


def is_copied(file: FileVersion) -> bool:
    """Whether a copy of the file can be filled with other numbers: a file of torch.save, or NeMo's with one inside."""
    head = read_bytes(file, 0, 8)
    return head.startswith(ZIP_MAGIC) or head[:1] == b"\x80" or is_nemo(file)


def is_archive(file: FileVersion) -> bool:
    """Whether the file is an archive of torch.save, as since version 1.6."""
    return read_bytes(file, 0, 4) == ZIP_MAGIC


class CopyPlan(NamedTuple):
    """The plan of a copy of an archive. `pickle` is None if the archive is copied unchanged."""

    records: Sequence[ZipRecord]
    name: str  # of the record with the pickle
    pickle: bytes | None
    left_out: frozenset[str]  # records
    items: Mapping[str, tuple[Dtype, Dtype]]  # record of a storage of another dtype -> its dtype before and now
    notes: TorchNotes
    converted: frozenset[str] = frozenset()  # records of the network's own that no name leads to, e.g. YOLO's strides
    why: str = ""  # it cannot be copied so


class CopySource(NamedTuple):
    """A file of the best ingredient that is copied for the soup."""

    file: FileVersion
    places: Mapping[str, StoredTensor]  # of the soup's tensors that lie in it
    key: str | None  # of the network among the file's entries
    casts: Mapping[str, tuple[Dtype, Dtype]]  # tensor -> its dtype here and in the soup, if these differ


def source_of(mixture: Mixture, file: FileVersion) -> CopySource:
    """Returns what the soup takes from `file`, which holds tensors of the best ingredient."""
    kept = mixture.kept.own
    places = {name: kept.places[name] for name in mixture.kept.tensors if kept.places[name].file == file}
    dtypes = {name: (kept.tensors[name].dtype, mixture.spec(name).dtype) for name in places}
    casts = {name: (before, now) for name, (before, now) in dtypes.items() if before != now}
    return CopySource(file, places, kept.origin.key, casts)


def why_not_cast(mixture: Mixture, file: FileVersion, options: CopyOptions) -> str:
    """Why no copy of `file` can hold its tensors in other dtypes; "" if one can."""
    source = source_of(mixture, file)
    return plan_copy(source, keep_state=options.keep_state).why if source.casts else ""


def plan_copy(source: CopySource, *, keep_state: bool) -> CopyPlan:
    """Returns how the archive is copied. Raises MixError for a broken one."""
    file, places, key, casts = source
    try:
        records = zip_records(file.path)
    except (zipfile.BadZipFile, ValueError) as cause:
        raise MixError(f"{file.path}: a broken zip archive: {cause}", hint=INSTEAD) from cause
    pickle = next(record for record in records if record.name.endswith("data.pkl"))
    stem = pickle.name.removesuffix("data.pkl") + "data/"
    mixed = {name: _record_of(place, records).name.removeprefix(stem) for name, place in places.items()}
    data = read_bytes(file, pickle.begin, pickle.size)
    entries = Entries.of(data, key) if pickle.size <= MAX_PICKLE else None
    named = set(mixed.values())
    dropped = [] if keep_state or entries is None else _training_state(file, key, entries, named)
    rest = entries.without(dropped) if entries is not None and dropped else data
    notes = notes_on(source, keep_state=keep_state, dropped=dropped if rest is not None else ())
    plan = CopyPlan(records, pickle.name, rest if dropped else None, frozenset(), {}, notes)
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
    own = _storages(entries, {name for name in entries.names if leads_to(name, key) or name.startswith(f"{key}.")})
    if not others <= own - named or {mixed[name] for name in places.keys() - casts.keys()} & wanted.keys():
        return plan._replace(why="other tensors in it have the same dtype, and keep it")
    pairs = {f"torch {STORAGES[old]}": (old, new) for old, new in casts.values()}
    items = {f"{stem}{one}": pair for one, pair in wanted.items()}
    items |= {f"{stem}{one}": pairs[entries.classes[one]] for one in others}
    pickle_now = with_classes(rest if rest is not None else data, classes)
    return plan._replace(pickle=pickle_now, items=items, converted=frozenset(f"{stem}{one}" for one in others))


def notes_on(source: CopySource, *, keep_state: bool, dropped: Sequence[str] = ()) -> TorchNotes:
    """Returns what is left out of a copy, and what stays in it as it is in the ingredient."""
    beside = beside_network(source.file, source.key)
    stayed = beside.tensors | (set() if keep_state else set(beside.training))
    return TorchNotes(tuple(dropped), tuple(sorted(stayed.difference(dropped))))


def _training_state(file: FileVersion, key: str | None, entries: Entries, mixed: set[str]) -> list[str]:
    """Return the entries with training state, which hold none of the storages that are `mixed`."""
    training = beside_network(file, key).training
    named = [entry for entry in entries.entries if entry.name in training and not entry.is_none]
    return [entry.name for entry in named if not entry.storages & mixed]


def _storages(entries: Entries, names: set[str]) -> set[str]:
    return {key for entry in entries.entries if entry.name in names for key in entry.storages}


def _record_of(place: StoredTensor, records: Sequence[ZipRecord]) -> ZipRecord:
    return max((one for one in records if one.begin <= place.offset), key=lambda one: (one.begin, one.size))


def moved_place(place: StoredTensor, plan: CopyPlan, begins: Mapping[str, int]) -> StoredTensor:
    """Return the tensor's place in the new archive."""
    record = _record_of(place, plan.records)
    inside = place.offset - record.begin
    if record.name in plan.items:
        before, now = plan.items[record.name]
        inside = inside // before.itemsize * now.itemsize
    return place._replace(offset=begins[record.name] + inside)
