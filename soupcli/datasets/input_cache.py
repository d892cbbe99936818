"""Decoded inputs kept between runs: uint8 pictures before normalisation, token ids; one safetensors file a key.

A file is written to a temporary name, tensor by tensor and row by row, flushed and renamed. The next run maps it into
memory, so processes share its pages and hold no second copy. Its header holds the key and a checksum of each part of
the data: a file that is truncated, damaged or of another key is never used. If the disk is full, inputs are kept in
memory. Past a limit the longest unused files are removed; a process that has one mapped keeps it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from soupcli.checkpoints.checkpoint import TensorSpec
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.formats.safetensors import NAMES, read_header
from soupcli.environment import versions
from soupcli.errors import CheckpointError
from soupcli.files.json_store import DAMAGED, JsonStore
from soupcli.files.json_text import key_of
from soupcli.files.kept_file import open_kept, refusal
from soupcli.files.lock import written_once
from soupcli.files.manifest import Manifest
from soupcli.files.reading import FileVersion, memory_of, write_at
from soupcli.late import torch
from soupcli.progress import unsaid

if TYPE_CHECKING:
    from torch import Tensor

PART = 1 << 26  # bytes that one checksum is of
SCHEMA = "soup-inputs/2"
NOTHING = "0" * 64  # in the header of inputs that depend on nothing beside their key
LARGEST = 1 << 42
DECODERS = ("torch", "torchvision", "pillow", "timm", "open_clip_torch", "transformers")
Put: TypeAlias = "Callable[[int, Tensor], None]"  # row number, row


class InputCache:
    """Inputs by key in `folder`; None keeps nothing. `say` is called once if the folder cannot be written any more.

    `manifest` records what inputs depend on besides their key: what the user's code has read. A folder that others can
    write is not used. `limit` is in bytes, for all files; the newest one stays however large it is. `decoded` counts
    the examples that this run made, `cached` those of earlier runs.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        manifest: Manifest | None = None,
        limit: int | None = None,
        say: Callable[[str], None] = unsaid,
    ) -> None:
        self.folder = folder if folder is None or refusal(folder) is None else None
        self.manifest = manifest or Manifest()
        self._depends = JsonStore(folder, SCHEMA, inputs=self.manifest, hands_on=True) if folder is not None else None
        self.limit = limit
        self.decoded = 0
        self.cached = 0
        self._say = say
        self._written: list[Path] = []

    def get(self, key: str, fits: Callable[[dict[str, Tensor]], bool]) -> dict[str, Tensor] | None:
        """Return the tensors under `key`, mapped into memory, or None if there are none or they do not fit."""
        if self.folder is None:
            return None
        found = self._mapped(self._file(key), key)
        if found is None or not fits(found):
            return None
        _mark_used(self._file(key))
        return found

    def made(
        self,
        key: str,
        make: Callable[[], dict[str, Tensor]],
        *,
        count: Callable[[dict[str, Tensor]], int],
        fits: Callable[[dict[str, Tensor]], bool],
    ) -> dict[str, Tensor]:
        """Return the small tensors of `count` examples under `key` if they fit, else the result of `make`."""
        kept = self.get(key, fits)
        if kept is not None:
            self.cached += count(kept)
            return kept
        tensors = make()
        self.decoded += count(tensors)
        specs = {name: TensorSpec(tuple(tensor.shape), Dtype.of(tensor.dtype)) for name, tensor in tensors.items()}

        def fill(places: Mapping[str, _Place]) -> None:
            for name, tensor in tensors.items():
                places[name].put_all(tensor)

        self._keep(key, specs, fill)
        return tensors

    def rows(self, key: str, shape: Sequence[int], dtype: torch.dtype, fill: Callable[[Put], None]) -> Tensor:
        """Return a tensor whose rows `fill` writes, in any order and from any thread, and keep it under `key`."""
        self.decoded += shape[0]
        specs = {"inputs": TensorSpec(tuple(shape), Dtype.of(dtype))}
        kept = self._keep(key, specs, lambda places: fill(places["inputs"].put))
        if kept is not None:
            return kept["inputs"]
        inputs = torch.empty(tuple(shape), dtype=dtype)
        fill(inputs.__setitem__)
        return inputs

    def discard(self) -> None:
        """Remove what this run has written: a file that it was made of has changed meanwhile."""
        for file in self._written:
            with contextlib.suppress(OSError):
                file.unlink()
        self._written.clear()

    def _keep(
        self, key: str, specs: Mapping[str, TensorSpec], fill: Callable[[Mapping[str, _Place]], None]
    ) -> dict[str, Tensor] | None:
        """Return the tensors mapped from the new file, or None if it could not be written."""
        if self.folder is None:
            return None
        file = self._file(key)
        try:
            with written_once(file) as descriptor:
                if descriptor is not None:
                    self._written.append(file)
                    _write(descriptor, key, specs, fill, lambda: self._put_depends(key))
            if self.limit is not None:
                _remove_unused(file, self.limit)
        except OSError as cause:
            self._say(f"{self.folder}: {cause.strerror}: decoded inputs are not kept for the next run")
            self.folder = None
            return None
        return self._mapped(file, key)

    def _put_depends(self, key: str) -> str:
        """Write what the file depends on beside it, and return its digest."""
        depends = self.manifest.depends()
        if not depends or self._depends is None:
            return NOTHING
        digest = key_of({"depends": depends})
        self._depends.put(key, digest)
        return digest

    def _mapped(self, file: Path, key: str) -> dict[str, Tensor] | None:
        """The tensors of a whole file of this key, if what it depends on is unchanged."""
        found = _mapped(file, key)
        if found is None:
            return None
        tensors, depends = found
        if depends != NOTHING and (self._depends is None or self._depends.get(key) != depends):
            return None
        return tensors

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"


def input_key(*parts: Any) -> str:
    """Return the key of inputs made from `parts`, which must be JSON, by the installed libraries."""
    return key_of({"parts": parts, "versions": {name: versions().get(name) for name in DECODERS}})


class _Place:
    """A tensor in a file that is being written."""

    def __init__(self, descriptor: int, offset: int, spec: TensorSpec) -> None:
        self._descriptor, self._offset = descriptor, offset
        self._row_bytes = spec.nbytes // spec.shape[0] if spec.shape and spec.shape[0] else 0

    def put(self, row: int, tensor: Tensor) -> None:
        """Write one row."""
        self._write(tensor, self._offset + row * self._row_bytes)

    def put_all(self, tensor: Tensor) -> None:
        """Write the whole tensor."""
        self._write(tensor, self._offset)

    def _write(self, tensor: Tensor, offset: int) -> None:
        dense = tensor.contiguous()
        write_at(self._descriptor, memory_of(dense), offset)


def _write(
    descriptor: int,
    key: str,
    specs: Mapping[str, TensorSpec],
    fill: Callable[[Mapping[str, _Place]], None],
    depends: Callable[[], str],
) -> None:
    """Write the file. Its space is allocated first, so that a full disk shows before the work."""
    total = sum(spec.nbytes for spec in specs.values())
    start = len(_header(key, specs, ["0" * 8] * -(-total // PART), NOTHING))
    os.ftruncate(descriptor, 0)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, start + total)
    offset, places = start, {}
    for name, spec in specs.items():
        places[name] = _Place(descriptor, offset, spec)
        offset += spec.nbytes
    fill(places)
    with mmap.mmap(descriptor, offset, access=mmap.ACCESS_READ) as content:
        checksums = _checksums(content, start)
    write_at(descriptor, _header(key, specs, checksums, depends()), 0)


def _header(key: str, specs: Mapping[str, TensorSpec], checksums: Sequence[str], depends: str) -> bytes:
    """The header; its length does not depend on the checksums and `depends`."""
    metadata = {"key": key, "checksums": " ".join(checksums), "depends": depends}
    entries: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for name, spec in specs.items():
        offsets = [begin, begin + spec.nbytes]
        entries[name] = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": offsets}
        begin += spec.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _mapped(path: Path, key: str) -> tuple[dict[str, Tensor], str] | None:
    """Return the tensors of a complete, undamaged file of this key, and the digest of what they depend on.

    Pages are loaded as they are used.
    """
    try:
        descriptor = open_kept(path, most=LARGEST)
        try:
            specs, places, metadata = read_header(FileVersion.of(path))
            content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)  # never written to
        finally:
            os.close(descriptor)
        start = min((place.offset for place in places.values()), default=0)
        if metadata.get("key") != key or metadata.get("checksums", "").split() != _checksums(content, start):
            return None
    except (CheckpointError, struct.error, *DAMAGED):
        return None
    tensors = {
        name: torch.frombuffer(content, dtype=spec.dtype.torch, count=spec.numel, offset=places[name].offset).view(
            spec.shape
        )
        if spec.numel
        else torch.empty(spec.shape, dtype=spec.dtype.torch)
        for name, spec in specs.items()
    }
    return tensors, metadata.get("depends", NOTHING)


def _checksums(content: mmap.mmap, start: int) -> list[str]:
    view = memoryview(content)
    with ThreadPoolExecutor() as pool:
        parts = range(start, len(content), PART)
        found = list(pool.map(lambda at: f"{zlib.crc32(view[at : at + PART]):08x}", parts))
    view.release()
    return found


def _mark_used(file: Path) -> None:
    """Set the access time to now, as file systems may not do so themselves. The modification time stays."""
    with contextlib.suppress(OSError):
        os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))


def _remove_unused(newest: Path, limit: int) -> None:
    """Remove files except `newest`, the longest unused first, until all together have at most `limit` bytes."""
    others: list[tuple[int, int, Path]] = []
    for file in newest.parent.glob(f"*{newest.suffix}"):
        with contextlib.suppress(OSError):  # another process removes too
            stat = file.stat()
            others.append((stat.st_atime_ns, stat.st_size, file))
    spare = sum(size for _, size, _ in others) - limit
    for _, size, file in sorted(other for other in others if other[2] != newest):
        if spare <= 0:
            return
        with contextlib.suppress(OSError):
            file.unlink()
        spare -= size
