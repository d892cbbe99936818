"""`.metadata` of a torch distributed checkpoint: which boxes of each tensor lie where.

It is a plain pickle of torch.distributed.checkpoint.metadata.Metadata, read with inert stand-ins: none of these classes
is imported, and nothing here needs torch.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.formats.pickles.machine import PickleError, budget_of
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn
from soupcli.checkpoints.formats.pickles.tensors import dtype_of
from soupcli.checkpoints.formats.pickles.unpickler import Unpickler
from soupcli.checkpoints.formats.training_state import NAMES
from soupcli.errors import CheckpointError
from soupcli.files.reading import read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soupcli.files.reading import FileVersion

MAX_METADATA = 1_000_000_000
DATA_PER_BYTE, MOST_FOR_DATA = 48, 240_000_000
OBJECT = 2000  # units for data that an object with attributes brings: an entry has four, and further ones for each box
SAVE_AGAIN = "copy or save the checkpoint again"
CHAINED = re.compile(r"chained_\d+\.")  # before the names of Megatron's optimizers, if it has several


class Box(NamedTuple):
    """`sizes` elements from `offsets` along each axis."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


class DistributedTensor(NamedTuple):
    """One tensor: its name in the flattened state dict, and the boxes that it was saved in."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    boxes: tuple[Box, ...]


class Place(NamedTuple):
    """The place of one box."""

    file: str
    offset: int
    length: int
    transformed: bool  # compressed or encrypted


class Metadata(NamedTuple):
    """The saved object, nested again, with entries as leaves, and the place of each box."""

    content: dict[str, Any]
    places: dict[tuple[str, tuple[int, ...]], Place]  # by name and offsets of the box
    described: StandIn  # all of it, as the file says it
    paths: dict[str, tuple[str, ...]]  # flattened name of each entry -> where it is in the saved object


class _Described(Unpickler):
    def built(self, _: StandIn) -> None:
        self.grant(OBJECT)


def read_metadata(file: FileVersion) -> Metadata:
    """Returns what `.metadata` says. Raises CheckpointError if it is broken or something else."""
    if file.size > MAX_METADATA:
        raise CheckpointError(f"{file.path}: {file.size} bytes, at most {MAX_METADATA} are read")
    budget = budget_of(file.size)._replace(data=min(DATA_PER_BYTE * file.size, MOST_FOR_DATA))
    unpickler = _Described(lambda at, count: read_bytes(file, at, count), budget=budget)
    try:
        described = unpickler.load()
        entries = _entries(_field(described, "state_dict_metadata"))
        paths = _paths(described, entries)
        return Metadata(_nested(entries, paths), _places(_field(described, "storage_data")), described, paths)
    except (PickleError, TypeError, ValueError, AttributeError, KeyError, IndexError) as cause:
        raise CheckpointError(f"{file.path}: not the metadata of a checkpoint: {cause}", hint=SAVE_AGAIN) from cause


def _field(stand_in: Any, name: str) -> Any:
    if not isinstance(stand_in, StandIn) or name not in stand_in.attributes:
        raise ValueError(f"it has no {name}")
    return stand_in.attributes[name]


def _entries(tensors: Any) -> dict[str, DistributedTensor | None]:
    """Name -> entry, None for what is no tensor."""
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise ValueError("its state_dict_metadata does not go by names")
    return {
        name: _entry(name, value) if isinstance(value, StandIn) and "chunks" in value.attributes else None
        for name, value in tensors.items()
    }


def _entry(name: str, described: StandIn) -> DistributedTensor:
    properties = _field(described, "properties")
    state = properties.state if isinstance(properties, StandIn) else None
    dtype = state[0] if isinstance(state, tuple) else _field(properties, "dtype")
    boxes = tuple(_box(chunk) for chunk in _field(described, "chunks"))
    return DistributedTensor(name, _counts(_field(described, "size")), dtype_of(dtype), boxes)


def _box(chunk: Any) -> Box:
    return Box(_counts(_field(chunk, "offsets")), _counts(_field(chunk, "sizes")))


def _counts(numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, tuple | list) or not all(
        type(number) is int and 0 <= number < 1 << 60 for number in numbers
    ):
        raise ValueError("a shape is no list of counts")
    return tuple(numbers)


def _paths(described: StandIn, entries: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Flattened name of each entry -> its path in the saved object.

    Megatron flattens names itself: what begins with the name of an optimizer, or the like, is in a part of that name.
    """
    said = described.attributes.get("planner_data")
    found = {}
    for name in entries:
        path = said.get(name) if isinstance(said, dict) else None
        steps = tuple(map(str, path)) if isinstance(path, tuple | list) and path else (name,)
        before, dot, after = CHAINED.sub("", steps[0], count=1).partition(".")
        found[name] = (before, after, *steps[1:]) if dot and NAMES.fullmatch(before) else steps
    return found


def _nested(entries: Mapping[str, DistributedTensor | None], paths: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The saved object, nested again from its flattened names."""
    top: dict[str, Any] = {}
    for name, entry in entries.items():
        *above, last = paths[name]
        at: Any = top
        for step in above:
            at = at.setdefault(step, {}) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at[last] = entry
    return top


def _places(storage_data: Any) -> dict[tuple[str, tuple[int, ...]], Place]:
    places: dict[tuple[str, tuple[int, ...]], Place] = {}
    for index, info in storage_data.items():
        name, offset = _field(index, "fqn"), index.attributes.get("offset")
        attributes = info.attributes
        file, begin, length = attributes["relative_path"], attributes["offset"], attributes["length"]
        if not isinstance(name, str) or not isinstance(file, str) or type(begin) is not int or type(length) is not int:
            raise ValueError("a place is not described by name, file, offset and length")
        key = name, _counts(offset) if offset is not None else ()
        places[key] = Place(file, begin, length, bool(attributes.get("transform_descriptors")))
    return places
