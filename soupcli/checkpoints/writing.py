"""A mixture to safetensors on disk: streamed, flushed, checked; the folder appears whole or not at all.

    with SoupFolder(Path("soup"), force=False) as folder:
        written = write_weights(mixture, folder.path, max_shard_size=5_000_000_000)
        folder.commit()

The header is known before the first tensor is mixed, so each chunk goes to its place from whichever thread mixed it:
reading, arithmetic and writing overlap, and memory holds a few chunks for each thread, whatever the size of the soup.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import TensorSpec
from soupcli.checkpoints.exchange import exchange
from soupcli.checkpoints.files import FileVersion, memory_of, sha256
from soupcli.checkpoints.mixing import Mixture, chunks, mix
from soupcli.checkpoints.safetensors_file import NAMES, read_header
from soupcli.errors import OutputError, SoupFault
from soupcli.progress import Progress, silent

THREADS = 4  # two that compute on two cores, two that wait for the disk
REPORT = "soup.json"
INDEX = "model.safetensors.index.json"


class Written(NamedTuple):
    """The weights as they stand on disk."""

    files: list[str]  # names in the soup folder
    nbytes: int
    hash: str  # SHA-256 of the one file, or of the sorted "name hash" lines of all shards


class _Shard(NamedTuple):
    name: str
    header: bytes
    offsets: dict[str, int]  # tensor -> first byte in the file
    nbytes: int


def write_weights(
    mixture: Mixture,
    folder: Path,
    *,
    metadata: Mapping[str, str],
    max_shard_size: int,
    overrides: Mapping[str, Tensor] | None = None,
    progress: Progress = silent,
) -> Written:
    """Mixes every tensor of `mixture` into safetensors files in `folder`.

    `overrides` replaces tensors by name (re-estimated batch-norm statistics). Raises MixError where a tensor cannot
    be mixed and OutputError where the disk is full.
    """
    names = sorted(mixture.kept.tensors)
    specs = {name: mixture.spec(name) for name in names}
    shards = _plan(specs, dict(metadata), max_shard_size)
    _check_space(folder, sum(shard.nbytes for shard in shards))
    done, total = 0, sum(spec.nbytes for spec in specs.values())
    for shard in shards:
        done = _write_shard(mixture, folder, shard, specs, overrides or {}, progress, done, total)
    if len(shards) > 1:
        _write_index(folder, shards, total)
    return _check_written(folder, shards)


def _plan(specs: Mapping[str, TensorSpec], metadata: dict[str, str], max_shard_size: int) -> list[_Shard]:
    groups: list[list[str]] = [[]]
    size = 0
    for name, spec in specs.items():
        if groups[-1] and size + spec.nbytes > max_shard_size:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += spec.nbytes
    count = len(groups)
    file_names = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    if count == 1:
        file_names = ["model.safetensors"]
    return [
        _layout(file, {n: specs[n] for n in group}, metadata) for file, group in zip(file_names, groups, strict=True)
    ]


def _layout(file_name: str, specs: Mapping[str, TensorSpec], metadata: dict[str, str]) -> _Shard:
    """Header and places: wide dtypes first, as safetensors orders them, so that every tensor is aligned."""
    entries: dict[str, object] = {"__metadata__": metadata}
    relative: dict[str, int] = {}
    at = 0
    for name in sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name)):
        spec = specs[name]
        entries[name] = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [at, at + spec.nbytes]}
        relative[name] = at
        at += spec.nbytes
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    base = 8 + len(header)
    return _Shard(
        file_name,
        struct.pack("<Q", len(header)) + header,
        {name: base + offset for name, offset in relative.items()},
        base + at,
    )


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder.parent}: {free} bytes are free, the soup needs {needed}",
            hint="make room, or choose another --out",
        )


def _write_shard(
    mixture: Mixture,
    folder: Path,
    shard: _Shard,
    specs: Mapping[str, TensorSpec],
    overrides: Mapping[str, Tensor],
    progress: Progress,
    done: int,
    total: int,
) -> int:
    def mix_and_write(name: str, start: int, count: int) -> int:
        replaced = overrides.get(name)
        if replaced is None:
            part = mix(mixture, name, start=start, count=count)
        else:
            part = replaced.to(specs[name].dtype).reshape(-1)[start : start + count].contiguous()
        _write_at(descriptor, part, shard.offsets[name] + start * part.element_size())
        return part.nbytes

    path = folder / shard.name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.ftruncate(descriptor, shard.nbytes)
        os.pwrite(descriptor, shard.header, 0)
        pieces = ((name, start, count) for name in shard.offsets for start, count in chunks(specs[name].numel))
        for nbytes in _in_threads(mix_and_write, pieces):
            done += nbytes
            progress("mixing", done, total)
        os.fsync(descriptor)
    except OSError as cause:
        raise OutputError(f"{path}: {cause.strerror}: the soup needs {shard.nbytes} bytes") from cause
    finally:
        os.close(descriptor)
    return done


def _in_threads(work: object, pieces: Iterator[tuple[str, int, int]]) -> Iterator[int]:
    """Results of `work` on each piece, as they are done; at most two pieces a thread are under way."""
    pending: set[Future[int]] = set()
    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for piece in pieces:
                pending.add(pool.submit(work, *piece))  # type: ignore[arg-type]
                if len(pending) >= 2 * THREADS:
                    finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in finished)
            yield from (future.result() for future in pending)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _write_at(descriptor: int, part: Tensor, offset: int) -> None:
    view, done = memory_of(part), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def _write_index(folder: Path, shards: list[_Shard], total: int) -> None:
    weight_map = {name: shard.name for shard in shards for name in shard.offsets}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_whole(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


def _check_written(folder: Path, shards: list[_Shard]) -> Written:
    """Opens what was written and hashes it. Raises SoupFault where it is not what was planned."""
    hashes: dict[str, str] = {}
    for shard in shards:
        file = FileVersion.of(folder / shard.name)
        specs, _, _ = read_header(file)
        if set(specs) != set(shard.offsets) or file.size != shard.nbytes:
            raise SoupFault(f"{file.path}: written with {file.size} bytes, {shard.nbytes} were planned")
        hashes[shard.name] = sha256(file)
    names = [*hashes, *([INDEX] if len(shards) > 1 else [])]
    return Written(names, sum(shard.nbytes for shard in shards), hash_of_files(hashes))


def hash_of_files(hashes: Mapping[str, str]) -> str:
    """`sha256:...` of one file, or of the sorted lines `name hash` of several."""
    if len(hashes) == 1:
        return f"sha256:{next(iter(hashes.values()))}"
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def write_whole(path: Path, text: str) -> None:
    """Writes `text` beside `path`, flushes it to disk and renames it there: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as cause:
        aside.unlink(missing_ok=True)
        raise OutputError(f"{path}: {cause.strerror}") from cause


class SoupFolder:
    """A folder that is filled beside its final name and takes it in one step, when `commit` is called.

    Raises OutputError where the final name is taken: by a soup, unless `force`; by anything else, always.
    """

    def __init__(self, out: Path, *, force: bool) -> None:
        self.out = out
        check_free(out, force=force)
        self.path = out.parent / f".{out.name or 'soup'}.{os.getpid()}.tmp"

    def __enter__(self) -> SoupFolder:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir()
        except OSError as cause:
            raise OutputError(f"{self.out}: {cause.strerror}", hint="choose another --out") from cause
        return self

    def copy(self, files: tuple[Path, ...]) -> list[str]:
        """Copies side files into the folder and returns their names."""
        for file in files:
            shutil.copyfile(file, self.path / file.name)
        return [file.name for file in files]

    def commit(self) -> None:
        """Gives the folder its final name; a soup that stood there is removed after it, its other files carried on."""
        _sync_folder(self.path)
        if not self.out.exists():
            self.path.rename(self.out)
        else:
            _carry_on(self.out, self.path)
            exchange(self.path, self.out)
        _sync_folder(self.out.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def check_free(out: Path, *, force: bool) -> None:
    """Raises OutputError where a soup cannot take the name `out`."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise OutputError(f"{out}: is a file, a soup is a folder", hint="choose another --out")
    if not (out / REPORT).exists():
        raise OutputError(f"{out}: exists and is not a soup (it has no {REPORT})", hint="choose another --out")
    if not force:
        raise OutputError(f"{out}: a soup is there already", hint="--force replaces it, --out writes elsewhere")


def _carry_on(old: Path, new: Path) -> None:
    """Links the files of `old` that no soup command wrote into `new`."""
    try:
        ours = set(json.loads((old / REPORT).read_text("utf-8"))["soup"]["files"])
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    for entry in old.iterdir():
        written_by_soup = entry.name in ours or entry.name == REPORT or entry.name.startswith("model")
        if written_by_soup or (new / entry.name).exists():
            continue
        if entry.is_dir():
            shutil.copytree(entry, new / entry.name, copy_function=os.link)
        else:
            os.link(entry, new / entry.name)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
