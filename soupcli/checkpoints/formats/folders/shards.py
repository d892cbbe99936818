"""Hugging Face's sharded layout: files of one checkpoint, and an index that maps each tensor to one of them.

    contents, shards = read_index(folder / "model.safetensors.index.json", open_shard)
    contents, shards = read_shards(shard_sets(folder, names)[0], open_shard)        # the index is not there

Shards that lack their index are read as well: the names of the files say how many there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.contents import Contents
from soupcli.checkpoints.formats.other_files import refuse_stand_in
from soupcli.errors import CheckpointError
from soupcli.files.json_text import TooManyValuesError, parse_json
from soupcli.files.reading import FileVersion, read_bytes

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import StoredTensor, TensorSpec

LONGEST_NAME = 255  # of a file, on every usual file system


def file_beside(naming: Path, name: str) -> FileVersion:
    """The file `name`, which the file `naming` names, in the same folder.

    Raises CheckpointError if it is missing and if the name is a path. A link is read as the file that it leads to.
    """
    if (
        len(name) > LONGEST_NAME
        or PurePosixPath(name).name != name
        or "\\" in name
        or name in ("", ".", "..")
        or "\0" in name
    ):
        raise CheckpointError(
            f"{naming}: names {name!r}, which is not a file name", hint="the files that it names lie beside it"
        )
    path = naming.parent / name
    if not path.is_file():
        raise CheckpointError(f"{naming}: names the file {name}, which is not there", hint="copy the missing file")
    return FileVersion.of(path)


MAX_INDEX = 1 << 25  # bytes
MOST_TENSORS = 250_000  # of one index: that of DeepSeek-V3, with its scales, has 91,991
SAVE_AGAIN = "copy or save the checkpoint again"
STALE = "the files are of several saves: save the checkpoint again"


def read_index(index: Path, open_shard: Callable[[FileVersion], Contents]) -> tuple[Contents, tuple[FileVersion, ...]]:
    """Specs and places of the tensors in all shards that `index` names, and the shards.

    A shard may hold more than the index says. Raises CheckpointError if a shard is missing, if one lacks a tensor that
    it should have, and if two have one tensor.
    """
    weight_map = _weight_map(index)
    shards = tuple(file_beside(index, file) for file in sorted(set(weight_map.values())))
    contents = _joined(index, shards, open_shard, weight_map)
    lacking = weight_map.keys() - contents.specs.keys()
    if lacking:
        name = min(lacking)
        raise _lacks(index, weight_map[name], name)
    return contents, shards


class ShardSet(NamedTuple):
    """Shards that belong together by their names: `model-00001-of-00003.safetensors` and its like."""

    folder: Path
    pattern: str  # model-*-of-00003.safetensors
    numbers: tuple[int, ...]  # that are there
    names: tuple[str, ...]
    total: int  # that there should be


COPY = r"( ?\([0-9]+\))?"  # what browsers add to names that are there
SHARD = re.compile(
    rf"(?P<stem>.+)[-._](?P<number>[0-9]{{1,6}})[-_]of[-_](?P<count>[0-9]{{1,6}})"
    rf"{COPY}(?P<end>(\.[A-Za-z]\w*)?\.[A-Za-z]+)"  # a variant of diffusers: model-00001-of-00003.fp16.safetensors
)


def is_shard(name: str) -> bool:
    """Whether a file is by its name one of several."""
    match = SHARD.fullmatch(name)
    return match is not None and int(match["count"]) > 1


def shard_sets(folder: Path, names: Iterable[str]) -> list[ShardSet]:
    """The shards among files of a folder, by what they are shards of."""
    found: dict[tuple[str, int], dict[int, str]] = {}
    for name in sorted(filter(is_shard, names)):
        match = SHARD.fullmatch(name)
        assert match is not None
        pattern = f"{name[: match.start('number')]}*{name[match.end('number') :]}"
        found.setdefault((pattern, int(match["count"])), {})[int(match["number"])] = name
    return [
        ShardSet(folder, pattern, tuple(sorted(named)), tuple(named[n] for n in sorted(named)), count)
        for (pattern, count), named in found.items()
    ]


# Names of whole files with a variant, as diffusers and transformers have them: `model.fp16.safetensors`.
VARIANT = re.compile(r"(?P<stem>(diffusion_)?(pytorch_)?model)\.(?P<variant>[\w-]+)(?P<end>\.(safetensors|bin))")
INDEX = re.compile(r".+\.index(\.[\w-]+)?\.json")


def index_name(whole: str) -> str:
    """The name of the index of a file's shards. A variant stands behind: model.safetensors.index.fp16.json.

    That is what `_add_variant` of both libraries makes (diffusers/utils/hub_utils.py).
    """
    folder, slash, name = whole.rpartition("/")
    match = VARIANT.fullmatch(name)
    if match is None:
        return f"{whole}.index.json"
    return f"{folder}{slash}{match['stem']}{match['end']}.index.{match['variant']}.json"


def is_index_name(name: str) -> bool:
    """Whether a file is by its name the index of shards."""
    return INDEX.fullmatch(name) is not None


def whole_name(name: str) -> str:
    """The name that a shard's file would have if there were one: `model.safetensors`."""
    match = SHARD.fullmatch(name)
    return match["stem"] + match["end"] if match is not None else name


def read_shards(
    shards: ShardSet, open_shard: Callable[[FileVersion], Contents]
) -> tuple[Contents, tuple[FileVersion, ...]]:
    """Specs and places of the tensors in shards that lack their index.

    Raises CheckpointError if one of them is missing, and if two have one tensor.
    """
    first = 0 if 0 in shards.numbers else 1
    missing = sorted(set(range(first, first + shards.total)) - set(shards.numbers))
    if missing:
        raise CheckpointError(
            f"{shards.folder}: holds {len(shards.numbers)} of the {shards.total} shards {shards.pattern}: "
            f"number {missing[0]} is missing",
            hint="copy the missing shards: one shard alone is a part of the network",
        )
    files = tuple(FileVersion.of(shards.folder / name) for name in shards.names)
    return _joined(shards.folder / shards.pattern, files, open_shard, {}), files


def _joined(
    source: Path, shards: Sequence[FileVersion], open_shard: Callable[[FileVersion], Contents], said: dict[str, str]
) -> Contents:
    specs: dict[str, TensorSpec] = {}
    places: dict[str, StoredTensor] = {}
    opened = [open_shard(shard) for shard in shards]
    for shard, contents in zip(shards, opened, strict=True):
        if contents.origin.key != opened[0].origin.key:
            raise CheckpointError(
                f"{shard.path}: its weights are under {contents.origin.key!r}, those of {shards[0].path.name} under "
                f"{opened[0].origin.key!r}",
                hint="--key takes the same from both",
            )
        for name, spec in contents.specs.items():
            wanted = said.get(name, shard.path.name)
            if wanted != shard.path.name:
                continue
            if name in specs:
                raise CheckpointError(
                    f"{source}: {places[name].file.path.name} and {shard.path.name} both have tensor {name!r}",
                    hint=STALE,
                )
            specs[name], places[name] = spec, contents.places[name]
    origin = opened[0].origin
    return Contents(specs, places, origin._replace(format=f"sharded {origin.format}"))


def _lacks(index: Path, shard: str, name: str) -> CheckpointError:
    return CheckpointError(f"{index}: says that {shard} has tensor {name!r}, it does not", hint=STALE)


def is_index(path: Path) -> bool:
    """Whether the file is JSON that maps tensors to shards."""
    try:
        return bool(_weight_map(path))
    except CheckpointError:
        return False


def _weight_map(index: Path) -> dict[str, str]:
    file = FileVersion.of(index)
    if file.size > MAX_INDEX:
        raise CheckpointError(f"{index}: {file.size} bytes, an index has at most {MAX_INDEX}", hint=SAVE_AGAIN)
    refuse_stand_in(file)
    try:
        content: Any = parse_json(read_bytes(file, 0, file.size), most=MOST_TENSORS, object_pairs_hook=_unique)
    except TooManyValuesError as cause:
        raise CheckpointError(f"{index}: {cause}", hint=SAVE_AGAIN) from cause
    except (ValueError, RecursionError) as cause:
        raise CheckpointError(f"{index}: not JSON: {cause}", hint=SAVE_AGAIN) from cause
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index}: has no weight_map from tensor names to file names")
    return weight_map


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a key stands there twice")
    return names
