"""A mixture to safetensors on disk: streamed, flushed, checked.

    written = write_weights(mixture, folder, metadata={"format": "pt"}, max_shard_size=5_000_000_000)

The header is known before the first tensor is mixed, so each chunk goes to its place from whichever thread mixed it:
reading, arithmetic and writing overlap, and memory holds a few chunks for each thread, whatever the size of the soup.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.adapters.adapter import CONFIG, WEIGHTS
from soupcli.checkpoints.checkpoint import in_file_order
from soupcli.checkpoints.formats.folders.shards import index_name
from soupcli.checkpoints.formats.safetensors import NAMES, read_header
from soupcli.errors import SoupFault
from soupcli.files.atomic import EarlyFlush, flush, write_whole
from soupcli.files.reading import FileVersion, hash_of_files, sha256, write_at
from soupcli.mixing.adapter_mean import AdapterSoup, is_of_adapters
from soupcli.mixing.hash_stream import HashStream
from soupcli.mixing.layout import SUFFIX, FilePlan, planned_files
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.own_format import Form, Format, chosen_format, in_safetensors, write_own
from soupcli.mixing.pieces import Mixer, pieces_of
from soupcli.mixing.soup_folder import check_space, not_written
from soupcli.mixing.torch_copy import CopyOptions
from soupcli.progress import Progress, silent
from soupcli.threads import in_threads

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import TensorSpec
    from soupcli.checkpoints.hashes import ContentHashes


class Written(NamedTuple):
    """Weights that were written."""

    files: list[str]  # relative to the soup folder
    nbytes: int
    hash: str  # SHA-256 of the one file, or of the sorted "name hash" lines of all shards
    hashes: Mapping[str, str]  # of each file: name -> sha256:...
    main: str  # the file to name: the weights, or the first index
    weight_files: tuple[str, ...] = ()  # that `hash` is of
    format: Form = "safetensors"
    notes: tuple[str, ...] = ()  # what became of the rest of the ingredient's file


class _Shard(NamedTuple):
    name: str  # of the file, relative to the soup's folder
    names: Mapping[str, str]  # tensor -> its name in the file
    header: bytes
    offsets: dict[str, int]  # tensor -> first byte in the file, in the order of the bytes
    nbytes: int


def write_weights(
    mixture: Mixture,
    folder: Path,
    *,
    metadata: Mapping[str, str],
    max_shard_size: int,
    final_metadata: Callable[[], Mapping[str, str]] | None = None,
    overrides: Mapping[str, Tensor] | None = None,
    files: Sequence[FilePlan] | None = None,
    device: torch.device | None = None,
    hashes: ContentHashes | None = None,
    progress: Progress = silent,
) -> Written:
    """Mix every tensor of `mixture` into safetensors files in `folder`, with arithmetic on `device`.

    `files` plans which file holds which tensor, by default as in the ingredients.

    `final_metadata` is called when all is mixed, and replaces `metadata` by text of the same lengths, e.g. hashes that
    were unknown before: `hashes` learns them from the bytes that are mixed. `overrides` replaces tensors by name
    (re-estimated batch-norm statistics). Raises MixError if a tensor cannot be mixed, and OutputError if the disk is
    full.
    """
    plans = planned_files(mixture) if files is None else files
    specs = {name: mixture.spec(name) for plan in plans for name in plan.names}
    groups = [_plan(plan, specs, metadata, max_shard_size) for plan in plans]
    shards = [shard for group in groups for shard in group]
    needed = sum(shard.nbytes for shard in shards)
    check_space(folder.parent, needed)
    done, total = 0, sum(spec.nbytes for spec in specs.values())
    orders = [in_file_order(mixture.members[0], shard.offsets) for shard in shards]
    mixed = [name for order in orders for name in order if name not in (overrides or {})]
    stream = HashStream() if hashes is None else HashStream.of(mixture, mixed, hashes)
    for shard, order in zip(shards, orders, strict=True):
        with _opened(folder / shard.name, folder, needed, os.O_CREAT | os.O_EXCL) as descriptor:
            os.ftruncate(descriptor, shard.nbytes)
            work = partial(Mixer, descriptor, shard.offsets, device, stream, holes=True)
            with EarlyFlush(descriptor) as early:
                for nbytes in in_threads(work, pieces_of(mixture, order, specs, overrides or {})):
                    done += nbytes
                    early.written(nbytes)
                    progress("mixing", done, total)
    stream.finish()
    for shard in shards:
        final = shard if final_metadata is None else _layout(shard.name, shard.names, specs, final_metadata())
        _write_header(folder, shard, final.header, needed)
    indexes = [_write_index(folder, plan, group) for plan, group in zip(plans, groups, strict=True) if len(group) > 1]
    return _check_written(folder, shards, specs, indexes)


def _plan(
    plan: FilePlan, specs: Mapping[str, TensorSpec], metadata: Mapping[str, str], max_shard_size: int
) -> list[_Shard]:
    groups: list[dict[str, str]] = [{}]
    size = 0
    for name, stored in plan.names.items():
        if groups[-1] and size + specs[name].nbytes > max_shard_size:
            groups.append({})
            size = 0
        groups[-1][name] = stored
        size += specs[name].nbytes
    count, stem = len(groups), plan.file.removesuffix(SUFFIX)
    file_names = [plan.file] if count == 1 else [f"{stem}-{i:05d}-of-{count:05d}{SUFFIX}" for i in range(1, count + 1)]
    return [_layout(file, names, specs, metadata) for file, names in zip(file_names, groups, strict=True)]


def _layout(
    file: str, names: Mapping[str, str], specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]
) -> _Shard:
    """Return header and places: wide dtypes first, as safetensors orders them, so that every tensor is aligned."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    relative: dict[str, int] = {}
    at = 0
    for name in sorted(names, key=lambda name: (-specs[name].dtype.itemsize, names[name])):
        spec = specs[name]
        place = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [at, at + spec.nbytes]}
        entries[names[name]] = place
        relative[name] = at
        at += spec.nbytes
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    base = 8 + len(header)
    return _Shard(
        file,
        names,
        struct.pack("<Q", len(header)) + header,
        {name: base + offset for name, offset in relative.items()},
        base + at,
    )


def _write_header(folder: Path, shard: _Shard, header: bytes, needed: int) -> None:
    if len(header) != len(shard.header):
        raise SoupFault(f"{folder / shard.name}: the final metadata has another length")
    with _opened(folder / shard.name, folder, needed) as descriptor:
        write_at(descriptor, header, 0)


@contextmanager
def _opened(path: Path, folder: Path, needed: int, flags: int = 0) -> Iterator[int]:
    """Yield a descriptor of the file `path`. An error of the system becomes an OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as cause:
        raise not_written(folder.parent, cause, needed) from cause


def _write_index(folder: Path, plan: FilePlan, shards: list[_Shard]) -> str:
    """Write the file that says which shard holds which tensor; returns its name."""
    weight_map = {shard.names[name]: shard.name.rpartition("/")[2] for shard in shards for name in shard.offsets}
    total = sum(shard.nbytes - len(shard.header) for shard in shards)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    name = index_name(plan.file)
    write_whole(folder / name, json.dumps(index, indent=2, sort_keys=True) + "\n")
    return name


def _check_written(folder: Path, shards: list[_Shard], specs: Mapping[str, TensorSpec], indexes: list[str]) -> Written:
    """Flush the file, open it again and hash it. Raises SoupFault if it is not as planned."""
    hashes: dict[str, str] = {}
    for shard in shards:
        file = FileVersion.of(folder / shard.name)
        with ThreadPoolExecutor(1) as pool:
            flushed = pool.submit(flush, file.path)  # the disk's work, while hashing is the processor's
            found, _, _ = read_header(file)
            if found != {stored: specs[name] for name, stored in shard.names.items()} or file.size != shard.nbytes:
                raise SoupFault(f"{file.path}: written with {file.size} bytes, {shard.nbytes} were planned")
            hashes[shard.name] = sha256(file)
            flushed.result()
    known = {name: f"sha256:{digest}" for name, digest in hashes.items()}
    known |= {name: f"sha256:{sha256(FileVersion.of(folder / name))}" for name in indexes}
    return Written(
        list(known),
        sum(shard.nbytes for shard in shards),
        hash_of_files(hashes),
        known,
        (indexes or list(known))[0],
        tuple(hashes),
    )


class AdapterNotes(NamedTuple):
    """Notes on a soup of adapters: rank and error."""

    rank: int  # of most layers
    relative_error: float  # 0 if the adapter is exact


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """The options of writing. See `write_weights`, `chosen_format` and `write_own`.

    `overrides` replaces tensors by name (re-estimated batch-norm statistics). Adapters become one of rank
    `adapter_rank` at most (None: exactly).
    """

    max_shard_size: int = sys.maxsize
    adapter_rank: int | None = None
    format: Format | None = None
    keep_state: bool = False
    merge_adapters: bool = False  # into their base: see merged_adapters.py
    overrides: Mapping[str, Tensor] = field(default_factory=dict)
    device: torch.device | None = None
    hashes: ContentHashes | None = None  # which learn those of the ingredients from the bytes that are mixed
    metadata: Mapping[str, str] = field(default_factory=lambda: {"format": "pt"})
    final_metadata: Callable[[], Mapping[str, str]] | None = None


def write_soup(
    mixture: Mixture, folder: Path, options: WritingOptions, progress: Progress = silent
) -> tuple[Written, AdapterNotes | None]:
    """Mix `mixture` into files in `folder`.

    Raises MixError if a tensor cannot be mixed, or the format cannot be written; OutputError if the disk is full.
    """
    final = options.final_metadata
    copying = CopyOptions(
        keep_state=options.keep_state,
        overrides=options.overrides,
        device=options.device,
        progress=progress,
        mark=options.metadata.get("soup", ""),
        final_mark=None if final is None else lambda: final()["soup"],
    )
    format_, note = chosen_format(mixture, options.format, copying)
    if options.hashes is not None and not _is_read_once(mixture, format_):
        options.hashes.start([*mixture.members, mixture.kept])
        options = replace(options, hashes=None)
    copying = replace(copying, hashes=options.hashes)
    if format_ != "safetensors":
        return _as_ingredients(mixture, folder, format_, options, copying), None
    write = _safetensors(folder, options, progress)
    if not is_of_adapters(mixture):
        written = write(mixture, max_shard_size=options.max_shard_size, overrides=options.overrides)
        return written._replace(notes=(note,) if note else ()), None
    soup = AdapterSoup.of(mixture, rank=options.adapter_rank, progress=progress)
    # PEFT reads one file of this name; as a mixture of one, its tensors are streamed like any others.
    plan = FilePlan(WEIGHTS[0], {name: name for name in soup.tensors})
    written = write(Mixture.uniform([soup]), max_shard_size=sys.maxsize, files=[plan])
    write_whole(folder / CONFIG, json.dumps(soup.config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    notes = AdapterNotes(soup.config["r"], soup.relative_error)
    config = f"sha256:{sha256(FileVersion.of(folder / CONFIG))}"
    hashes = {**written.hashes, CONFIG: config}
    return written._replace(files=list(hashes), hashes=hashes), notes


def _is_read_once(mixture: Mixture, format_: Form) -> bool:
    """Whether the tensors of ingredients are read once, and no hash is needed before the last one was."""
    if format_ == "safetensors":
        return not is_of_adapters(mixture)
    return format_ == "torch" and all(len(one.files) == 1 for one in (*mixture.members, mixture.kept))


def _safetensors(folder: Path, options: WritingOptions, progress: Progress) -> Callable[..., Written]:
    """Call `write_weights` on the folder with these options."""
    return partial(
        write_weights,
        folder=folder,
        metadata=options.metadata,
        final_metadata=options.final_metadata,
        device=options.device,
        hashes=options.hashes,
        progress=progress,
    )


def _as_ingredients(
    mixture: Mixture, folder: Path, form: Form, options: WritingOptions, copying: CopyOptions
) -> Written:
    own = write_own(mixture, folder, copying, wanted=options.format)
    hashes = {name: f"sha256:{digest}" for name, digest in {**own.digests, **own.others}.items()}
    written = Written(
        list(hashes), own.nbytes, hash_of_files(own.digests), hashes, own.main, tuple(own.digests), form, own.notes
    )
    others = in_safetensors(mixture) if options.format != "torch" else []
    if not others:
        return written
    write = _safetensors(folder, options, copying.progress)
    shard = options.max_shard_size
    return _with(written, write(mixture, max_shard_size=shard, overrides=options.overrides, files=others))


def _with(written: Written, beside: Written) -> Written:
    """Return both parts as one soup."""
    hashes = {**written.hashes, **beside.hashes}
    names = (*written.weight_files, *beside.weight_files)
    digests = {name: hashes[name].removeprefix("sha256:") for name in names}
    return written._replace(
        files=list(hashes),
        nbytes=written.nbytes + beside.nbytes,
        hash=hash_of_files(digests),
        hashes=hashes,
        main="",
        weight_files=names,
    )
