"""Plain pickles of numpy arrays by name, such as detectron2's model zoo holds (`model_final.pkl`).

    contents = read_contents(file, How())               # {"model": {name: array}, ...}, or {name: array}

As every pickle it is read with inert stand-ins, and no array is read before its numbers are needed. The arrays' bytes
lie in the file as they are since protocol 3 of pickle.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.checkpoint import Origin, StoredTensor, TensorSpec
from soupcli.checkpoints.contents import Contents, How
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.formats.folders.neighbours import writer_of
from soupcli.checkpoints.formats.network_part import network_part
from soupcli.checkpoints.formats.other_files import refuse_unknown_file
from soupcli.checkpoints.formats.own_settings import settings_in
from soupcli.checkpoints.formats.pickles.machine import PickleError, budget_of
from soupcli.checkpoints.formats.pickles.stand_ins import Payload, StandIn, entries_of, find_in
from soupcli.checkpoints.formats.pickles.tensors import is_array
from soupcli.checkpoints.formats.pickles.unpickler import Unpickler
from soupcli.checkpoints.formats.saved_parts import view_of
from soupcli.checkpoints.formats.soup_mark import members_at, tail_of
from soupcli.errors import CheckpointError
from soupcli.files.reading import read_bytes

if TYPE_CHECKING:
    from soupcli.files.reading import FileVersion

FORMAT = "numpy pickle"
PADDLE = "PaddlePaddle"
# Key beside the arrays -> who writes it, and the part that is the network (None: the object itself).
WRITERS = {
    "__author__": ("detectron2", "model"),
    "matching_heuristics": ("detectron2", "model"),
    "StructuredToParameterName@@": (PADDLE, None),
}
ENDINGS = (".pkl", ".pdparams")
KINDS = {
    "b1": Dtype.BOOL,
    "u1": Dtype.UINT8,
    "i1": Dtype.INT8,
    "u2": Dtype.UINT16,
    "i2": Dtype.INT16,
    "u4": Dtype.UINT32,
    "i4": Dtype.INT32,
    "u8": Dtype.UINT64,
    "i8": Dtype.INT64,
    "f2": Dtype.FLOAT16,
    "f4": Dtype.FLOAT32,
    "f8": Dtype.FLOAT64,
    "c8": Dtype.COMPLEX64,
    "c16": Dtype.COMPLEX128,
}
PROTOCOLS = range(3, 6)  # of pickles that hold bytes as they are
SAVE_AGAIN = (
    "if you trust it, save it again: pickle.dump(pickle.load(open(path, 'rb')), open(other_path, 'wb'), protocol=4)"
)


class _Array(NamedTuple):
    """An array: its shape and dtype, where its bytes lie, and whether columns lie together (Fortran's order)."""

    spec: TensorSpec
    data: Payload
    by_columns: bool


def begins(file: FileVersion) -> bool:
    """Whether the file begins as a pickle."""
    head = read_bytes(file, 0, 2)
    return len(head) == 2 and head[0] == 0x80 and head[1] in (2, *PROTOCOLS)


def holds_arrays(file: FileVersion) -> bool:
    """Whether the file says that its arrays are a network: others are statistics, or examples."""
    if file.path.suffix not in ENDINGS or not begins(file):
        return False
    try:
        return read_contents(file, How()).origin.format != FORMAT or writer_of(file.path) is not None
    except CheckpointError:
        return False


def _read(file: FileVersion) -> Any:
    """Read the pickled object, with stand-ins. Raises CheckpointError if it is broken."""
    unpickler = Unpickler(
        lambda at, count: read_bytes(file, at, max(0, min(count, file.size - at))),
        budget=budget_of(file.size),
        longest_bytes=0,
    )
    try:
        return unpickler.load()
    except PickleError as cause:
        raise CheckpointError(f"{file.path}: not opened: {cause}", hint="copy or save the file again") from cause


def read_contents(file: FileVersion, how: How) -> Contents:
    """Specs and places of the network's arrays. Raises CheckpointError if there are none, or have no plain bytes."""
    content = _read(file)
    if next(find_in(content, is_array), None) is None:
        refuse_unknown_file(file)
    if isinstance(content, StandIn) and entries_of(content) is None:
        raise CheckpointError(
            f"{file.path}: is a pickled {content.full_name}, not arrays by name",
            hint="save the network's state dict alone: torch.save(model.state_dict(), path)",
        )
    part = network_part(file.path, content, key=how.key, is_tensor=is_array)
    specs: dict[str, TensorSpec] = {}
    places: dict[str, StoredTensor] = {}
    for name, value in part.tensors.items():
        specs[name], places[name] = _stored(file, name, value)
    keys = {str(key) for key in view_of(content) or {}}
    writer = next((name for key, (name, of) in WRITERS.items() if key in keys and part.key == of), FORMAT)
    members = members_at(file, tail_of(file))
    origin = Origin(writer, part.key, notes=part.notes, averaged=part.averaged, members=members, states=part.states)
    settings = settings_in(content, network=part.key or "", own=part.keys_of_states)
    return Contents(specs, places, origin._replace(settings=settings))


def _stored(file: FileVersion, name: str, value: StandIn) -> tuple[TensorSpec, StoredTensor]:
    try:
        array = _array_of(value)
    except (TypeError, ValueError, KeyError, IndexError) as cause:
        raise CheckpointError(f"{file.path}: tensor {name!r} is an array that is not read: {cause}") from cause
    if array is None:
        raise CheckpointError(
            f"{file.path}: tensor {name!r} is an array whose bytes do not lie in the pickle as they are",
            hint=SAVE_AGAIN,
        )
    spec, data, by_columns = array
    if data.length != spec.nbytes:
        raise CheckpointError(f"{file.path}: tensor {name!r} needs {spec.nbytes} bytes, it has {data.length}")
    strides = None
    if by_columns and len(spec.shape) > 1:
        strides = tuple(math.prod(spec.shape[:axis]) for axis in range(len(spec.shape)))
    return spec, StoredTensor(file, data.offset, strides)


def _array_of(value: StandIn) -> _Array | None:
    """The array of a stand-in, None if its bytes lie elsewhere or as text. Raises KeyError for an unknown dtype."""
    if value.full_name.endswith("_frombuffer"):  # protocol 5
        data, dtype, shape, order = value.args
        by_columns = order == "F"
    else:
        _, shape, dtype, by_columns, data = value.state
    if not isinstance(data, Payload) or data.text:
        return None
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    return _Array(TensorSpec(tuple(shape), _dtype_of(dtype)), data, bool(by_columns))


def _dtype_of(value: StandIn) -> Dtype:
    """Return the dtype of numpy.dtype('f4'), in this machine's byte order."""
    kind, state = str(value.args[0]), value.state
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    if order == ">" or kind not in KINDS:
        raise ValueError(f"its dtype is {order}{kind}")
    return KINDS[kind]
