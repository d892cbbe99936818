"""`images: 'shards/val-{0000..0003}.tar'`: pictures in .tar shards of the WebDataset layout, read without unpacking.

A sample is a picture `key.jpg` (.jpeg, .png, .webp) and its label, a whole number: the text of `key.cls`, or `label` or
`cls` in the object of `key.json`. The key is the member's path up to the first dot of its last part; members of other
kinds are passed over. Format: https://github.com/webdataset/webdataset, and POSIX.1-1988 ustar with pax headers.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from soupcli.datasets.image_folders import PictureFile, read_exactly
from soupcli.errors import ValidationError
from soupcli.files.tar_archive import open_tar
from soupcli.progress import Progress, silent

PICTURES = ("jpg", "jpeg", "png", "webp")
LABELS = ("cls", "json")
MAX_PICTURE = 256 * 2**20  # bytes; a shard is read into memory one picture at a time
MAX_LABEL = 2**20
MAX_SHARDS = 100_000
MAX_CLASSES = 2**31

Sample = dict[str, tarfile.TarInfo]  # extension -> member

_MAGIC = re.compile(r"[*?[]")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_KEY = re.compile(r"(?P<key>(?:.*/)?[^/.][^/.]*)\.(?P<extension>[^/]+)", re.DOTALL)


def find(images: Path) -> list[Path] | None:
    """Return the shards that `images:` names, sorted, or None if it names a folder of class folders.

    It may be a .tar file, a folder with only some of these, a glob, or ranges `{0000..0003}`. Raises ValidationError if
    a shard of a range is missing.
    """
    if images.is_dir():
        names = sorted(name for name in os.listdir(images) if not name.startswith("."))  # noqa: PTH208
        shards = [images / name for name in names if name.endswith(".tar")]
        return shards if shards and not any((images / name).is_dir() for name in names) else None
    if images.is_file() or not (_RANGE.search(str(images)) or _MAGIC.search(str(images))):
        return [images] if images.suffix == ".tar" else None
    shards = []
    for word in _ranges(str(images)):
        matched = _matching(Path(word))
        if not matched or not matched[0].is_file():
            raise ValidationError(f"{word}: no such shard", hint=f"images: {images} in the recipe names it")
        shards += matched
    return sorted(dict.fromkeys(shards))


def read_index(shards: Sequence[Path], *, progress: Progress = silent) -> list[tuple[PictureFile, int]]:
    """Return the place and label of every picture, in the order of the shards. Only headers and labels are read.

    Raises ValidationError for a file that is no whole, uncompressed archive, for a member whose name leads out of it,
    that is a link or too large, and for a sample without a picture or a label.
    """
    index = []
    for done, shard in enumerate(shards, 1):
        try:
            with _opened(shard) as file:
                samples = _samples(shard, file)
                index += [(_picture(shard, k, s), _label(shard, k, s, file.fileno())) for k, s in samples.items()]
        except OSError as cause:
            raise ValidationError(f"{shard}: {cause.strerror or cause}") from cause
        progress("indexing shards", done, len(shards))
    return index


def _opened(shard: Path) -> BinaryIO:
    """Open the shard if it is a plain file. Raises OSError, and ValidationError for a pipe or a device."""
    file = os.fdopen(os.open(shard, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)), "rb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise ValidationError(f"{shard}: a pipe, a device or a folder, not a .tar file")


def _ranges(word: str) -> Iterator[str]:
    """`a{00..02}` to a00, a01, a02; several ranges multiply."""
    parts = _RANGE.split(word)  # text, first, last, text, ...
    ranges, count = [], 1
    for first, last in zip(parts[1::3], parts[2::3], strict=True):
        count *= max(0, int(last) - int(first) + 1)
        if not 0 < count <= MAX_SHARDS:
            raise ValidationError(f"{word}: {{{first}..{last}}} is no range of shards", hint="e.g. {0000..0003}")
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        ranges.append([str(number).zfill(width) for number in range(int(first), int(last) + 1)])
    for numbers in product(*ranges):
        yield "".join(text + number for text, number in zip(parts[::3], (*numbers, ""), strict=True))


def _matching(pattern: Path) -> list[Path]:
    """Return the paths that match a glob, sorted, or the path itself without a wildcard."""
    plain = next((place for place, part in enumerate(pattern.parts) if _MAGIC.search(part)), None)
    if plain is None:
        return [pattern]
    return sorted(Path(*pattern.parts[:plain]).glob("/".join(pattern.parts[plain:])))


def _samples(shard: Path, file: BinaryIO) -> dict[str, Sample]:
    """Key -> its members, in the order in which keys appear."""
    samples: dict[str, Sample] = {}
    for member in _members(shard, file):
        matched = _KEY.fullmatch(member.name.removeprefix("./"))
        if matched is None or not member.isreg():
            continue
        sample = samples.setdefault(matched["key"], {})
        extension = matched["extension"].lower()
        if extension in sample:
            raise ValidationError(f"{shard}: has the member {member.name!r} twice")
        if extension in (*PICTURES, *LABELS):
            sample[extension] = member
    return {key: sample for key, sample in samples.items() if sample}


def _members(shard: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    size, before = os.fstat(file.fileno()).st_size, -1
    try:
        with open_tar(file) as archive:
            for member in archive:
                _check(shard, member, size)
                if member.offset <= before:
                    raise ValidationError(f"{shard}: a header points backwards: damaged")
                before = member.offset
                yield member
            end = archive.offset
    except tarfile.TarError as cause:
        raise ValidationError(
            f"{shard}: not a tar archive: {cause}", hint="a compressed one must be uncompressed: gunzip, zstd -d"
        ) from cause
    if os.pread(file.fileno(), 512, end) != bytes(512):
        raise ValidationError(
            f"{shard}: damaged or cut short: at byte {end} there is neither a member nor the archive's end",
            hint="fetch or write the shard again",
        )


def _check(shard: Path, member: tarfile.TarInfo, size: int) -> None:
    where = f"{shard}: member {member.name!r}"
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name:
        raise ValidationError(f"{where}: a name that leads out of the archive")
    if not member.isreg() and not member.isdir():
        raise ValidationError(f"{where}: is a link or a device, a shard holds files")
    if member.issparse():
        raise ValidationError(f"{where}: is stored sparse", hint="tar without --sparse")
    if not 0 <= member.size <= MAX_PICTURE:
        raise ValidationError(f"{where}: {member.size} bytes, a picture has at most {MAX_PICTURE}")
    if member.offset_data + member.size > size:
        raise ValidationError(
            f"{where}: ends at byte {member.offset_data + member.size}, the file at {size}: cut short"
        )


def _picture(shard: Path, key: str, sample: Sample) -> PictureFile:
    pictures = [sample[extension] for extension in PICTURES if extension in sample]
    if len(pictures) != 1:
        has = " and ".join(member.name for member in pictures) or "no picture"
        raise ValidationError(f"{shard}: sample {key!r} has {has}", hint=f"one of {key}.{{{','.join(PICTURES)}}}")
    return PictureFile(shard, pictures[0].name, pictures[0].offset_data, pictures[0].size)


def _label(shard: Path, key: str, sample: Sample, file: int) -> int:
    member = next((sample[extension] for extension in LABELS if extension in sample), None)
    if member is None:
        raise ValidationError(f"{shard}: sample {key!r} has no label", hint=f"{key}.cls holds it, or {key}.json")
    if member.size > MAX_LABEL:
        raise ValidationError(f"{shard}: {member.name!r}: {member.size} bytes, a label has at most {MAX_LABEL}")
    content = read_exactly(file, member.size, member.offset_data)
    value = _from_json(content) if member.name.lower().endswith(".json") else content.strip()
    if isinstance(value, bytes) and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_CLASSES:
        return value
    raise ValidationError(
        f"{shard}: {member.name!r}: the label is {repr(value)[:80]}, not a whole number from 0",
        hint="the text of a .cls file, or label or cls in the object of a .json file",
    )


def _from_json(content: bytes) -> object:
    try:
        sample = json.loads(content)
    except (ValueError, RecursionError):
        return content[:40]
    return sample.get("label", sample.get("cls")) if isinstance(sample, dict) else sample
