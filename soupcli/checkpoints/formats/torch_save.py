"""What `torch.save` writes (.pt, .pth, .pth.tar, .bin, .ckpt): a zip archive of a pickle and the tensors' bytes.

The pickle is read by torch's safe loader onto the meta device (see safe_loading.py), so no tensor data is read when
the file is opened; the bytes of each tensor are read from the archive where they lie, uncompressed.
"""

from __future__ import annotations

import math
import struct
import sys
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import Origin, StoredTensor, TensorSpec
from soupcli.checkpoints.contents import Contents, How
from soupcli.checkpoints.formats.pickles import COUNTER, SAVE_AGAIN, load_on_meta, unwrap
from soupcli.checkpoints.formats.safetensors import NAMES
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, open_slice, read_bytes

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6
MAX_PICKLE = 200_000_000
LOCAL_HEADER = 30  # bytes of a zip archive's local file header before the name

# Who writes which keys beside the weights; the first that fits names the format.
WRITERS: tuple[tuple[str, frozenset[str]], ...] = (
    ("Lightning", frozenset({"pytorch-lightning_version"})),
    ("DeepSpeed", frozenset({"ds_version"})),
    ("timm training", frozenset({"arch", "state_dict", "optimizer"})),
    ("open_clip training", frozenset({"name", "epoch", "state_dict"})),
    ("fairseq", frozenset({"model", "extra_state"})),
)
METRICS = ("metric",)  # timm's


class _Record(NamedTuple):
    offset: int  # of its first byte in the file
    size: int


def is_torch_file(file: FileVersion) -> bool:
    """Whether the file begins as `torch.save` begins it."""
    head = read_bytes(file, 0, len(LEGACY_MAGIC))
    return head.startswith(ZIP_MAGIC) or head == LEGACY_MAGIC


def holds_a_pickle(file: FileVersion) -> bool:
    """Whether it is an archive as `torch.save` writes them, not any other zip file."""
    if read_bytes(file, 0, 4) != ZIP_MAGIC:
        return is_torch_file(file)
    try:
        return any(name.endswith("data.pkl") for name in _records(file, 0, file.size))
    except CheckpointError:
        return True  # broken: whoever opens it says how


def read_contents(file: FileVersion, how: How) -> Contents:
    """Returns the contents of `file` as `how` says. Raises CheckpointError, see read_header."""
    return read_header(file, key=how.key, allow=how.allow)


def read_header(file: FileVersion, *, key: str | None = None, allow: Sequence[str] = ()) -> Contents:
    """Specs and places of the tensors of the state dict in `file`, under `key` or the first usual one.

    Raises CheckpointError where it is not a zip archive of uncompressed tensors, where the safe loader refuses a class,
    and where no state dict is found.
    """
    if read_bytes(file, 0, 4) != ZIP_MAGIC:
        raise CheckpointError(
            f"{file.path}: written by torch.save before torch 1.6",
            hint="save it again: torch.save(torch.load(path, weights_only=True), path)",
        )
    records = _records(file, 0, file.size)
    content = load_on_meta(file, allow=allow)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file.path}: holds a {type(content).__name__}, not a state dict")
    origin = _origin(content)
    if origin.format == "DeepSpeed":
        raise CheckpointError(
            f"{file.path}: a part of a DeepSpeed checkpoint", hint="python -m deepspeed.utils.zero_to_fp32 converts it"
        )
    chosen, state = unwrap(file.path, content, key=key, is_tensor=lambda value: isinstance(value, Tensor))
    if COUNTER in state and origin.format == "torch":
        origin = origin._replace(format="averaged")
    specs: dict[str, TensorSpec] = {}
    places: dict[str, StoredTensor] = {}
    sizes = _sizes(records)
    for name, tensor in state.items():
        specs[name], places[name] = _stored(file, f"tensor {name!r}", tensor, sizes)
    return Contents(specs, places, origin._replace(key=chosen))


def read_tensor_header(file: FileVersion, offset: int, length: int) -> tuple[TensorSpec, StoredTensor]:
    """Spec and place of the one tensor that `torch.save` wrote into `length` bytes of `file` from `offset`."""
    records = _records(file, offset, length)
    tensor = load_on_meta(file, offset, length)
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{file.path}: holds a {type(tensor).__name__} at byte {offset}, not a tensor")
    return _stored(file, f"the tensor at byte {offset}", tensor, _sizes(records), base=offset)


def _origin(content: Mapping[Any, Any]) -> Origin:
    keys = {str(key) for key in content}
    format_ = next((name for name, written in WRITERS if written <= keys), "torch")
    numbers = {name: content[name] for name in METRICS if isinstance(content.get(name), int | float)}
    return Origin(format_, None, {name: float(value) for name, value in numbers.items()})


def _records(file: FileVersion, offset: int, length: int) -> dict[str, _Record]:
    """Name of each record of the archive in a part of `file` -> where its data lies, relative to the part."""
    try:
        with zipfile.ZipFile(open_slice(file, offset, length)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as cause:
        raise CheckpointError(f"{file.path}: a broken zip archive: {cause}", hint=SAVE_AGAIN) from cause
    records: dict[str, _Record] = {}
    for info in infos:
        name = info.filename.partition("/")[2]  # without the archive's own name
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{file.path}: record {name!r} is compressed, which torch.save never does")
        header = read_bytes(file, offset + info.header_offset, LOCAL_HEADER)
        if len(header) < LOCAL_HEADER:
            raise CheckpointError(f"{file.path}: a broken zip archive: {name!r} has no header", hint=SAVE_AGAIN)
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        begin = info.header_offset + LOCAL_HEADER + name_length + extra_length
        if begin + info.file_size > length:
            raise CheckpointError(f"{file.path}: a broken zip archive: {name!r} ends after it", hint=SAVE_AGAIN)
        records[name] = _Record(begin, info.file_size)
    _check_records(file, offset, records)
    return records


def _check_records(file: FileVersion, offset: int, records: Mapping[str, _Record]) -> None:
    if "constants.pkl" in records:
        raise CheckpointError(
            f"{file.path}: a TorchScript archive, which is a program",
            hint="save its weights: torch.save(torch.jit.load(path).state_dict(), other_path)",
        )
    pickled = records.get("data.pkl")
    if pickled is not None and pickled.size > MAX_PICKLE:
        raise CheckpointError(f"{file.path}: its pickle has {pickled.size} bytes, at most {MAX_PICKLE} are read")
    order = records.get("byteorder")
    if order is not None and read_bytes(file, offset + order.offset, min(order.size, 16)) != sys.byteorder.encode():
        raise CheckpointError(f"{file.path}: written on a machine of another byte order", hint=SAVE_AGAIN)


def _sizes(records: Mapping[str, _Record]) -> dict[int, int]:
    """Offset of the data of each record -> its size."""
    sizes: dict[int, int] = {}
    for record in records.values():
        sizes[record.offset] = max(record.size, sizes.get(record.offset, 0))
    return sizes


def _stored(
    file: FileVersion, what: str, tensor: Tensor, sizes: Mapping[int, int], *, base: int = 0
) -> tuple[TensorSpec, StoredTensor]:
    """Spec and place of `tensor` (on the meta device), checked against the archive's own table of records."""
    if tensor.layout != torch.strided or tensor.dtype not in NAMES:
        kind = tensor.layout if tensor.layout != torch.strided else tensor.dtype
        raise CheckpointError(f"{file.path}: {what} is {kind}, which this version does not read")
    spec = TensorSpec(tuple(tensor.shape), tensor.dtype)
    strides = None if tensor.is_contiguous() else tensor.stride()
    offset: int = getattr(tensor.untyped_storage(), "_checkpoint_offset", -1)
    begin = int(tensor.storage_offset()) * spec.dtype.itemsize
    extent = 1 + sum((size - 1) * stride for size, stride in zip(spec.shape, tensor.stride(), strict=True))
    needed = begin + extent * spec.dtype.itemsize if math.prod(spec.shape) else 0
    stored = sizes.get(offset, 0)
    if needed > stored:
        raise CheckpointError(
            f"{file.path}: {what} needs {needed} bytes, its record has {stored}",
            hint=SAVE_AGAIN,
        )
    return spec, StoredTensor(file, base + offset + begin, strides)
