"""The safetensors format, header first: u64 length, JSON, then the tensors' bytes without gaps.

Format: https://github.com/huggingface/safetensors#format. Every statement of a header is checked before a byte of
tensor data is trusted.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from typing import Any, NoReturn

from soupcli.checkpoints.checkpoint import Origin, StoredTensor, TensorSpec
from soupcli.checkpoints.contents import Contents, How
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.formats.class_lists import entries_in, lists_in
from soupcli.checkpoints.formats.own_settings import settings_in
from soupcli.checkpoints.formats.soup_mark import members_in
from soupcli.errors import CheckpointError
from soupcli.files.json_text import TooManyValuesError, parse_json
from soupcli.files.reading import FileVersion, read_bytes

MAX_HEADER = 1 << 25  # bytes: a hundred thousand tensors take half of that

DTYPES = {
    "F64": Dtype.FLOAT64,
    "F32": Dtype.FLOAT32,
    "F16": Dtype.FLOAT16,
    "BF16": Dtype.BFLOAT16,
    "F8_E4M3": Dtype.FLOAT8_E4M3FN,
    "F8_E5M2": Dtype.FLOAT8_E5M2,
    "I64": Dtype.INT64,
    "I32": Dtype.INT32,
    "I16": Dtype.INT16,
    "I8": Dtype.INT8,
    "U8": Dtype.UINT8,
    "U16": Dtype.UINT16,
    "U32": Dtype.UINT32,
    "U64": Dtype.UINT64,
    "BOOL": Dtype.BOOL,
    "C64": Dtype.COMPLEX64,
}
QUANTISED = ("F4", "F6_E2M3", "F6_E3M2", "F8_E8M0")  # NVFP4, MXFP4, and the scales of MX formats
NAMES = {dtype: name for name, dtype in DTYPES.items()}

KEYS = {"dtype", "shape", "data_offsets"}

Header = tuple[dict[str, TensorSpec], dict[str, StoredTensor], dict[str, str]]


def is_safetensors(file: FileVersion) -> bool:
    """Whether the file begins as a safetensors file does: a u64 length, then `{`."""
    return file.size >= 9 and read_bytes(file, 8, 1) == b"{"


def read_header(file: FileVersion) -> Header:
    """Specs and places of all tensors, and the metadata. Raises CheckpointError if the header is wrong."""
    if file.size < 8:
        _refuse(file, f"has {file.size} bytes, too few for a header")
    (length,) = struct.unpack("<Q", read_bytes(file, 0, 8))
    if MAX_HEADER < length <= file.size - 8:
        _refuse(file, f"its header has {length} bytes, at most {MAX_HEADER} are read")
    if length > file.size - 8:
        _refuse(file, f"the header says it has {length} bytes, the file has {file.size}")
    entries = _parse(file, read_bytes(file, 8, length))
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(file, "its __metadata__ is not a mapping of text to text")
    base = 8 + length
    specs: dict[str, TensorSpec] = {}
    places: dict[str, StoredTensor] = {}
    spans: list[tuple[int, int, str]] = []
    known: dict[str, tuple[TensorSpec, int]] = {}  # networks have few shapes
    for name, entry in entries.items():
        specs[name], (begin, end) = _entry(file, name, entry, known)
        places[name] = StoredTensor(file, base + begin)
        spans.append((begin, end, name))
    _check_spans(file, spans, file.size - base)
    return specs, places, metadata


PARTS = "DCP_SHARDING_INFO"  # torch.distributed.checkpoint.HuggingFaceStorageWriter
INDEX = "model.safetensors.index.json"  # which it writes only with tensors that are whole


def read_contents(file: FileVersion, _: How) -> Contents:
    """Returns specs and places of all tensors. Raises CheckpointError if they are parts of larger ones."""
    specs, places, metadata = read_header(file)
    if PARTS in metadata and (file.path.name.startswith("shard-") or not (file.path.parent / INDEX).is_file()):
        raise CheckpointError(
            f"{file.path}: a part that torch's distributed checkpoint wrote, of tensors that lie in several files",
            hint="torch.distributed.checkpoint._consolidate_hf_safetensors.consolidate_safetensors_files joins them",
        )
    said = {key: text for key, text in metadata.items() if key != "soup"} | _documents(metadata)
    marked = members_in(metadata.get("soup", "{}"))
    classes, lists, inputs = lists_in(said, entries_in)
    origin = Origin("safetensors", members=marked, classes=classes, lists=lists, inputs=inputs)
    return Contents(specs, places, origin._replace(settings=settings_in(said)))


def _documents(metadata: dict[str, str]) -> dict[str, Any]:
    """Return the lists and maps that the metadata holds as JSON, but for the mark of a soup."""
    found = {}
    for key, text in metadata.items():
        if key != "soup" and text.startswith(("[", "{")):
            try:
                found[key] = parse_json(text)
            except (ValueError, RecursionError):
                continue
    return found


def _refuse(file: FileVersion, what: str) -> NoReturn:
    raise CheckpointError(f"{file.path}: not a valid safetensors file: {what}", hint="copy or save the file again")


def _parse(file: FileVersion, header: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            doubled, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            _refuse(file, f"the header has the key {doubled!r} twice")
        return found

    try:
        entries = parse_json(header.decode("utf-8"), object_pairs_hook=unique)
    except TooManyValuesError as cause:
        _refuse(file, str(cause))
    except (ValueError, RecursionError) as cause:
        _refuse(file, f"its header is not JSON ({cause.__class__.__name__})")
    if not isinstance(entries, dict):
        _refuse(file, "its header is not a JSON object")
    return entries


def _entry(
    file: FileVersion, name: str, entry: Any, known: dict[str, tuple[TensorSpec, int]]
) -> tuple[TensorSpec, tuple[int, int]]:
    """Return a tensor's spec and the span of its bytes. `known` keeps each spec and its bytes, by what states it."""
    if not isinstance(entry, dict) or entry.keys() != KEYS:
        _refuse(file, f"tensor {name!r} needs dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    stated = f"{dtype!r} {shape}"
    if stated not in known:
        known[stated] = _spec(file, name, dtype, shape)
    if not _counts(offsets) or len(offsets) != 2:
        _refuse(file, f"tensor {name!r} has shape {shape} and data_offsets {offsets}")
    (spec, nbytes), (begin, end) = known[stated], offsets
    if end - begin != nbytes:
        _refuse(file, f"tensor {name!r} needs {nbytes} bytes, its data_offsets span {end - begin}")
    return spec, (begin, end)


def _spec(file: FileVersion, name: str, dtype: Any, shape: Any) -> tuple[TensorSpec, int]:
    if dtype in QUANTISED:
        raise CheckpointError(
            f"{file.path}: tensor {name!r} has dtype {dtype}, which only quantised weights have",
            hint="dequantise the weights with the library that quantised them, and save them again",
        )
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{file.path}: tensor {name!r} has dtype {dtype!r}, which this version does not read",
            hint=f"save it as one of {', '.join(DTYPES)}",
        )
    if not _counts(shape):
        _refuse(file, f"tensor {name!r} has shape {shape}")
    return TensorSpec(tuple(shape), DTYPES[dtype]), math.prod(shape) * DTYPES[dtype].itemsize


def _counts(values: Any) -> bool:
    """Whether these are whole numbers from 0 on. True is none."""
    return isinstance(values, list) and {*map(type, values)} <= {int} and min(values, default=0) >= 0


def _check_spans(file: FileVersion, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            _refuse(file, f"tensor {name!r} begins at byte {begin} of the data, {at} was expected")
        at = end
    if at != data_bytes:
        _refuse(file, f"its tensors end at byte {at} of the data, which has {data_bytes}")
