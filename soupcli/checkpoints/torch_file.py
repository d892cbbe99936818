"""What `torch.save` writes (.pt, .pth, .bin): a zip archive, unpickled by torch's safe loader onto the meta device.

No tensor data is read when the file is opened and nothing in the file is executed: `weights_only=True` builds tensors
and plain containers alone. The bytes of each tensor are read from the archive where they lie, uncompressed.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import StoredTensor, TensorSpec
from soupcli.checkpoints.files import FileVersion, read_bytes
from soupcli.errors import CheckpointError

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # tried in this order; else the mapping itself
PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
SAVE_AGAIN = "copy or save the file again"
BROKEN = (RuntimeError, EOFError, KeyError, ValueError, AttributeError, AssertionError, TypeError, IndexError)
MAX_PICKLE = 200_000_000


def is_torch_file(file: FileVersion) -> bool:
    """Whether the file begins as `torch.save` begins it."""
    head = read_bytes(file, 0, len(LEGACY_MAGIC))
    return head.startswith(ZIP_MAGIC) or head == LEGACY_MAGIC


def read_header(file: FileVersion) -> tuple[dict[str, TensorSpec], dict[str, StoredTensor]]:
    """Specs and places of the tensors of the state dict in `file`.

    Raises CheckpointError where it is not a zip archive of uncompressed tensors, where the safe loader refuses a class,
    and where no state dict is found.
    """
    if not read_bytes(file, 0, 4) == ZIP_MAGIC:
        raise CheckpointError(
            f"{file.path}: written by torch.save before torch 1.6",
            hint="save it again: torch.save(torch.load(path, weights_only=True), path)",
        )
    records = _records(file)
    state = _state_dict(file, _load_on_meta(file))
    specs: dict[str, TensorSpec] = {}
    places: dict[str, StoredTensor] = {}
    for name, tensor in state.items():
        specs[name] = TensorSpec(tuple(tensor.shape), tensor.dtype)
        places[name] = _place(file, name, tensor, records)
    return specs, places


def _records(file: FileVersion) -> dict[int, int]:
    """Offset of the data of each record -> its size."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as cause:
        raise CheckpointError(
            f"{file.path}: a broken zip archive: {cause}", hint="copy or save the file again"
        ) from cause
    records: dict[int, int] = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{file.path}: record {info.filename!r} is compressed, which torch.save never does")
        if info.filename.endswith("data.pkl") and info.file_size > MAX_PICKLE:
            raise CheckpointError(f"{file.path}: its pickle has {info.file_size} bytes, at most {MAX_PICKLE} are read")
        header = read_bytes(file, info.header_offset, 30)
        if len(header) == 30:
            name_length, extra_length = struct.unpack("<HH", header[26:30])
            records[info.header_offset + 30 + name_length + extra_length] = info.file_size
    return records


def _load_on_meta(file: FileVersion) -> Any:
    try:
        return torch.load(file.path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as cause:
        wanted = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(cause))
        what = f"it needs {wanted[1]}" if wanted else str(cause).splitlines()[0]
        raise CheckpointError(
            f"{file.path}: not opened: the safe loader takes tensors and plain containers only, {what}",
            hint="if you trust the file, save its weights alone: torch.save(model.state_dict(), path)",
        ) from cause
    except (
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        AttributeError,
        AssertionError,
        TypeError,
        IndexError,
    ) as cause:
        first_line = next(iter(str(cause).strip().splitlines()), cause.__class__.__name__)
        raise CheckpointError(f"{file.path}: not a torch checkpoint: {first_line}", hint=SAVE_AGAIN) from cause


def _state_dict(file: FileVersion, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        wrapped = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
        state = {str(name): value for name, value in wrapped.items() if isinstance(value, Tensor)}
        for prefix in PREFIXES:
            if state and all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
        if state:
            return state
        keys = ", ".join(repr(str(key)) for key in list(content)[:8])
        raise CheckpointError(f"{file.path}: no state dict in it, only {keys}")
    raise CheckpointError(f"{file.path}: holds a {type(content).__name__}, not a state dict")


def _place(file: FileVersion, name: str, tensor: Tensor, records: Mapping[int, int]) -> StoredTensor:
    """Where `tensor` (on the meta device) lies, checked against the archive's own table of records."""
    offset: int = getattr(tensor.untyped_storage(), "_checkpoint_offset", -1)
    if tensor.layout != torch.strided or (offset not in records and tensor.numel()):
        raise CheckpointError(f"{file.path}: tensor {name!r} is {tensor.layout}, only dense tensors are read")
    strides = None if tensor.is_contiguous() else tensor.stride()
    begin, itemsize = int(tensor.storage_offset()), tensor.element_size()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (begin + extent) * itemsize if tensor.numel() else 0
    if needed > records.get(offset, 0):
        raise CheckpointError(
            f"{file.path}: tensor {name!r} needs {needed} bytes, its record has {records.get(offset, 0)}",
            hint=SAVE_AGAIN,
        )
    return StoredTensor(file, offset + begin * itemsize, strides)
