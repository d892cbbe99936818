"""`{images: /data/imagenet/val}`: one folder of pictures for each class, or .tar shards of them.

Pictures are decoded by the network's own transform. Labels come from folders or shards (see class_ids.py) or from a
file (see labels_file.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from soupcli.errors import ValidationError
from soupcli.extras import need
from soupcli.network import Pictures
from soupcli.progress import Progress, silent
from soupcli.recipe import ImagesSet
from soupcli.validation import class_folders, labels_file, tar_shards
from soupcli.validation.class_ids import classes_of
from soupcli.validation.class_map import ClassMap
from soupcli.validation.examples import ArrayExamples
from soupcli.validation.picture_file import PictureFile
from soupcli.validation.set_file import content_hash

SUFFIXES = class_folders.SUFFIXES


class LabelledPictures(NamedTuple):
    """The pictures of a set, their labels (int64 [N], or [N, M] where several are right), and which logits count."""

    pictures: list[PictureFile]
    labels: Tensor
    classes: ClassMap | None


def fingerprint(spec: ImagesSet) -> str:
    """Of names, sizes and times of all files, of the rest of the recipe's set and of the files that it names."""
    digest = hashlib.sha256()
    shards = tar_shards.find(spec.images)
    files = shards if shards is not None else [picture.path for picture in class_folders.find_flat(spec.images)]
    for path in files:
        name = path.name if shards is not None else path.relative_to(spec.images)
        try:
            stat = path.stat()
        except OSError as cause:
            raise ValidationError(f"{path}: {cause.strerror}") from cause
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    settings = spec.model_dump(mode="json", exclude={"images", "metric"}, exclude_defaults=True)
    for key, value in spec:
        if isinstance(value, Path) and key != "images":
            settings[key] = content_hash(value)
    return f"images:{digest.hexdigest()}:{json.dumps(settings, sort_keys=True)}"


def find(spec: ImagesSet, *, label_names: Sequence[str] | None = None, progress: Progress = silent) -> LabelledPictures:
    """The pictures and labels of a set; nothing is decoded. Raises ValidationError where there are none."""
    shards = tar_shards.find(spec.images)
    found: list[tuple[PictureFile, str]]
    if shards is not None:
        found = [(picture, str(label)) for picture, label in tar_shards.read_index(shards, progress=progress)]
    elif spec.labels is not None:
        found = [(picture, "") for picture in class_folders.find_flat(spec.images)]
    else:
        found = class_folders.find(spec.images)
    if not found:
        raise ValidationError(f"{spec.images}: holds no pictures")
    if spec.labels is not None:
        return _labelled_by_file(spec.labels, spec.images, [picture for picture, _ in found])
    names = list(dict.fromkeys(name for _, name in found))
    classes = classes_of(spec, names, label_names=label_names, numbered=shards is not None)
    covered = [(picture, classes.labels[name]) for picture, name in found if name in classes.labels]
    if not covered:
        raise ValidationError(f"{spec.images}: classes: covers none of its classes", hint=f"they are {names[:5]}")
    labels = torch.tensor([label for _, label in covered])
    return LabelledPictures([picture for picture, _ in covered], labels, classes.class_map)


def _labelled_by_file(file: Path, images: Path, pictures: list[PictureFile]) -> LabelledPictures:
    names = [picture.member or picture.path.relative_to(images).as_posix() for picture in pictures]
    places, labels = labels_file.read(file, names)
    return LabelledPictures([pictures[place] for place in places], labels, None)


def load(
    spec: ImagesSet,
    pictures: Pictures,
    *,
    label_names: Sequence[str] | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> ArrayExamples:
    """All pictures, decoded once by `workers` threads (None: one for each core) and kept as uint8 [N, C, H, W].

    A folder's label is what `class_to_index` says, else its place among the network's `label_names` where they name
    every folder, else its place among the folders. Raises ValidationError for an empty folder and for a file that is
    not a picture.
    """
    mark = fingerprint(spec)
    labelled = find(spec, label_names=label_names, progress=progress)
    files, decoder = labelled.pictures, _Decoder(pictures, spec.border)
    first = decoder.decode(files[0])
    inputs = torch.empty((len(files), *first.shape), dtype=first.dtype)

    def decode_into(index: int) -> None:
        pixels = decoder.decode(files[index])
        if pixels.shape != first.shape or pixels.dtype != first.dtype:
            raise ValidationError(
                f"{files[index]}: becomes {pixels.dtype} {list(pixels.shape)}, "
                f"{files[0]} {first.dtype} {list(first.shape)}",
                hint="the transform must make all pictures of one size and dtype",
            )
        inputs[index] = pixels

    with ThreadPoolExecutor(max(1, workers if workers is not None else os.cpu_count() or 1)) as pool:
        try:
            for done, _ in enumerate(pool.map(decode_into, range(len(files))), 1):
                progress(f"decoding {spec.images}", done, len(files))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return ArrayExamples(inputs, labelled.labels, mark, pictures.normalise, labelled.classes)


class _Decoder:
    """From an encoded picture to what the network's transform makes of it."""

    def __init__(self, pictures: Pictures, border: int) -> None:
        self._image_module: Any = need("PIL.Image", extra="images")
        self._pictures = pictures
        self._border = border

    def decode(self, file: PictureFile) -> Tensor:
        """Raises ValidationError where it is no picture, or the transform cannot take it."""
        try:
            with self._image_module.open(io.BytesIO(file.read())) as picture:
                converted = self._cropped(picture.convert(self._pictures.mode), file)
        except ValidationError:
            raise
        except Exception as cause:  # whatever the decoder of the format stumbles over
            raise ValidationError(f"{file}: not a readable picture: {cause}", hint="remove or replace it") from cause
        try:
            return self._pictures.decode(converted)
        except Exception as cause:
            raise ValidationError(f"{file}: the network's transform fails: {type(cause).__name__}: {cause}") from cause

    def _cropped(self, picture: Any, file: PictureFile) -> Any:
        if not self._border:
            return picture
        (width, height), left = picture.size, self._border
        if min(width, height) <= 2 * left:
            raise ValidationError(f"{file}: is {width} x {height}, border: {left} leaves nothing of it")
        return picture.crop((left, left, width - left, height - left))
