"""Files of statistics beside the weights: the mean and deviation of inputs and outputs, in numpy's and torch's formats.

is_statistics("feats_stats.npz")                        # True
statistics_in(FileVersion.of(path))                     # {"sum": "numbers, sha256:0a1b2c3d4e5f", "count": ...}

numpy is not needed. Format of .npz: numpy.lib.format in a zip archive.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from soupcli.checkpoints.formats import safetensors, torch_save
from soupcli.checkpoints.formats.folders.folder import STATISTICS, TRAINER_STATE
from soupcli.checkpoints.formats.own_settings import hash_of, settings_in
from soupcli.checkpoints.formats.pickles.tensors import is_tensor
from soupcli.checkpoints.formats.setting_words import MEASURED, OF_NUMBERS, OF_STATISTICS, kind_of
from soupcli.checkpoints.formats.torch_archives import read_object
from soupcli.checkpoints.formats.zip_directory import BrokenZip, Record, read_directory
from soupcli.checkpoints.shell_patterns import matches
from soupcli.files.json_text import parse_json
from soupcli.files.reading import read_bytes, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from soupcli.files.reading import FileVersion

JSON = ".json"
TORCH = (".pt", ".pth", ".bin")
PLAIN = (".npy", ".pkl", ".pickle", ".joblib", ".ark", ".mvn", "")  # the same numbers are the same bytes
TABLES = (".txt", ".csv", ".tsv")
OF_TOKENS = re.compile(r"(.*[_-])?(idf|token_weights)([_-]weights)?", re.IGNORECASE)  # weights of sparse encoders
OF_EVALUATION = re.compile(r"(val(id|idation)?|dev|test|eval(uation)?)[._-].*", re.IGNORECASE)
ABOVE = "stats"  # what keys of statistics lie below, whatever their file is called
CONTENT = "content"
LOCAL = struct.Struct("<26x2H")  # of a record's own header: lengths of its name and extra field
STORED, DEFLATED = 0, 8
LARGEST, MOST_RECORDS = 1 << 24, 200  # bytes of an array, and arrays of an archive


def is_statistics(name: str) -> bool:
    """Whether a file of this name holds statistics of inputs and outputs, not measures of a training."""
    if matches(name, STATISTICS):
        return True
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path for each of very many files takes long
    suffix = suffix.lower()
    if suffix == ".mvn":
        return True
    if suffix == JSON:
        return OF_TOKENS.fullmatch(stem) is not None
    measured = MEASURED.fullmatch(stem) or OF_EVALUATION.fullmatch(stem)
    if suffix not in READERS or measured or (suffix in TORCH and matches(name, TRAINER_STATE)):
        return False
    words = OF_NUMBERS if suffix in (*TABLES, ".ark", "") else OF_STATISTICS
    return words.fullmatch(stem) is not None


def statistics_in(file: FileVersion) -> dict[str, str]:
    """Return the statistics in a file by their keys, as text: equal texts are equal numbers.

    Raises CheckpointError, OSError or ValueError for a broken file.
    """
    return READERS[file.path.suffix.lower()](file)


def _of_torch(file: FileVersion) -> dict[str, str]:
    saved = read_object(file)
    numbers = partial(torch_save.numbers_of, file, saved)
    if is_tensor(saved.content):
        return {CONTENT: hash_of(numbers(saved.content) or b"", "numbers")}
    return _without_name(settings_in(saved.content, numbers, named=ABOVE))


def _of_safetensors(file: FileVersion) -> dict[str, str]:
    specs, places, _ = safetensors.read_header(file)
    small = {f"{ABOVE}.{name}": name for name, spec in specs.items() if spec.nbytes <= torch_save.MOST_NUMBERS}
    return _without_name(
        {
            key: hash_of(
                f"{specs[name]}".encode() + read_bytes(file, places[name].offset, specs[name].nbytes), "numbers"
            )
            for key, name in small.items()
            if kind_of(key) == "inputs"
        }
    )


def _of_npz(file: FileVersion) -> dict[str, str]:
    return {name: hash_of(content, "numbers") for name, content in _arrays(file)}


def _of_json(file: FileVersion) -> dict[str, str]:
    numbers = parse_json(read_bytes(file, 0, file.size))
    return {CONTENT: hash_of(json.dumps(numbers, sort_keys=True).encode(), "numbers")}


def _of_bytes(file: FileVersion) -> dict[str, str]:
    return {CONTENT: f"sha256:{sha256(file)[:12]}"}


def _without_name(settings: dict[str, str]) -> dict[str, str]:
    return {key.removeprefix(f"{ABOVE}."): value for key, value in settings.items()}


def _arrays(file: FileVersion) -> Iterator[tuple[str, bytes]]:
    """Yield the arrays of an archive with their headers, by name, but for those of measures of a training."""
    try:
        records = read_directory(file, 0, file.size)[:MOST_RECORDS]
    except BrokenZip as cause:
        raise ValueError(str(cause)) from cause
    for record in sorted(records):
        name = PurePosixPath(record.name).stem
        if record.size <= LARGEST and record.method in (STORED, DEFLATED) and not MEASURED.fullmatch(name):
            yield name, _content(file, record)


def _content(file: FileVersion, record: Record) -> bytes:
    """Return the bytes of a record, unpacked."""
    begin = record.header + LOCAL.size + sum(LOCAL.unpack(read_bytes(file, record.header, LOCAL.size)))
    if record.method == STORED:
        return read_bytes(file, begin, record.size)
    packed = read_bytes(file, begin, min(file.size - begin, LARGEST))
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max(record.size, 1))
    except zlib.error as cause:
        raise ValueError(f"{record.name}: {cause}") from cause


READERS: dict[str, Callable[[FileVersion], dict[str, str]]] = {
    JSON: _of_json,
    ".npz": _of_npz,
    ".safetensors": _of_safetensors,
    **dict.fromkeys(TORCH, _of_torch),
    **dict.fromkeys((*PLAIN, *TABLES), _of_bytes),
}
