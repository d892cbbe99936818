"""Hugging Face's sharded layout: an index file that maps each tensor to one of the shards beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from soupcli.checkpoints.checkpoint import StoredTensor, TensorSpec
from soupcli.checkpoints.files import FileVersion, read_bytes
from soupcli.errors import CheckpointError

MAX_INDEX = 100_000_000

Contents = tuple[dict[str, TensorSpec], dict[str, StoredTensor]]


def read_index(index: Path, open_shard: Callable[[FileVersion], Contents]) -> tuple[Contents, tuple[FileVersion, ...]]:
    """Specs and places of the tensors in all shards that `index` names, and the shards.

    Raises CheckpointError where a shard is missing or lies elsewhere, and where index and shards disagree.
    """
    weight_map = _weight_map(index)
    specs: dict[str, TensorSpec] = {}
    places: dict[str, StoredTensor] = {}
    shards = tuple(_shard(index, name) for name in sorted(set(weight_map.values())))
    for shard in shards:
        shard_specs, shard_places = open_shard(shard)
        mapped = {name for name, file in weight_map.items() if file == shard.path.name}
        _compare(index, shard, mapped, set(shard_specs))
        specs |= shard_specs
        places |= shard_places
    return (specs, places), shards


def _weight_map(index: Path) -> dict[str, str]:
    file = FileVersion.of(index)
    if file.size > MAX_INDEX:
        raise CheckpointError(f"{index}: {file.size} bytes, an index has at most {MAX_INDEX}")
    try:
        content: Any = json.loads(read_bytes(file, 0, file.size))
    except (ValueError, RecursionError) as cause:
        raise CheckpointError(f"{index}: not JSON: {cause}", hint="copy or save the checkpoint again") from cause
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index}: has no weight_map from tensor names to file names")
    return weight_map


def _shard(index: Path, name: str) -> FileVersion:
    if PurePosixPath(name).name != name or "\\" in name or name in (".", "..") or "\0" in name:
        raise CheckpointError(f"{index}: shard {name!r} is not a file name: shards lie beside their index")
    path = index.parent / name
    if not path.is_file():
        raise CheckpointError(f"{index}: names the shard {name}, which is not there", hint="copy the missing shard")
    return FileVersion.of(path)


def _compare(index: Path, shard: FileVersion, mapped: set[str], stored: set[str]) -> None:
    for name in sorted(mapped - stored):
        raise CheckpointError(
            f"{index}: says that {shard.path.name} has tensor {name!r}, it does not",
            hint="the index is of another save than the shards: save the checkpoint again",
        )
    for name in sorted(stored - mapped):
        raise CheckpointError(
            f"{index}: does not name tensor {name!r}, which {shard.path.name} has",
            hint="the index is of another save than the shards: save the checkpoint again",
        )
