"""`{images: /data/imagenet/val}`: one folder of pictures for each class, decoded by the network's own transform."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from soupcli.errors import ValidationError
from soupcli.extras import need
from soupcli.network import Pictures
from soupcli.progress import Progress, silent
from soupcli.recipe import ImagesSet
from soupcli.recipe_yaml import suggestion
from soupcli.validation.examples import ArrayExamples
from soupcli.validation.set_file import content_hash

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}


def fingerprint(spec: ImagesSet) -> str:
    """Of names, sizes and times of all files, of the labels, and of the names of a zero-shot classifier."""
    digest = hashlib.sha256()
    for path, label in _labelled(spec):
        stat = path.stat()
        digest.update(f"{path.relative_to(spec.images)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{label}\n".encode())
    texts = [content_hash(file) for file in (spec.classnames, spec.templates) if file is not None]
    return ":".join(["images", digest.hexdigest(), *texts])


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
    labelled = _labelled(spec, label_names)
    image_module = need("PIL.Image", extra="images")
    first = _decode(image_module, pictures, labelled[0][0])
    inputs = torch.empty((len(labelled), *first.shape), dtype=first.dtype)

    def decode_into(index: int) -> None:
        pixels = _decode(image_module, pictures, labelled[index][0])
        if pixels.shape != first.shape or pixels.dtype != first.dtype:
            raise ValidationError(
                f"{labelled[index][0]}: becomes {pixels.dtype} {list(pixels.shape)}, "
                f"{labelled[0][0]} {first.dtype} {list(first.shape)}",
                hint="the transform must make all pictures of one size and dtype",
            )
        inputs[index] = pixels

    with ThreadPoolExecutor(max(1, workers if workers is not None else os.cpu_count() or 1)) as pool:
        try:
            for done, _ in enumerate(pool.map(decode_into, range(len(labelled))), 1):
                progress(f"decoding {spec.images}", done, len(labelled))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    labels = torch.tensor([label for _, label in labelled])
    return ArrayExamples(inputs, labels, fingerprint(spec), pictures.normalise)


def _decode(image_module: Any, pictures: Pictures, path: Path) -> Tensor:
    try:
        with image_module.open(path) as picture:
            converted = picture.convert(pictures.mode)
    except Exception as cause:  # whatever the decoder of the format stumbles over
        raise ValidationError(f"{path}: not a readable picture: {cause}", hint="remove or replace it") from cause
    try:
        return pictures.decode(converted)
    except Exception as cause:
        raise ValidationError(f"{path}: the network's transform fails: {type(cause).__name__}: {cause}") from cause


def _labelled(spec: ImagesSet, label_names: Sequence[str] | None = None) -> list[tuple[Path, int]]:
    """Every picture below the folder and its label, sorted by path; hidden files and folders are none."""
    if not spec.images.is_dir():
        raise ValidationError(f"{spec.images}: no such folder", hint="images: takes a folder of class folders")
    folders = [entry for entry in spec.images.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    folders.sort(key=_by_number if all(entry.name.isdecimal() for entry in folders) else None)
    index = _class_to_index(spec, folders, label_names)
    labelled: list[tuple[Path, int]] = []
    for folder in folders:
        if folder.name not in index:
            raise ValidationError(
                f"{folder}: class_to_index has no {folder.name!r}{suggestion(folder.name, index)}",
                hint="add it, or move the folder away",
            )
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
        labelled += [(path, index[folder.name]) for path in files]
    if not labelled:
        raise ValidationError(
            f"{spec.images}: holds no pictures in class folders",
            hint=f"images: takes a folder with one folder of pictures ({', '.join(sorted(SUFFIXES))}) for each class",
        )
    return labelled


def _by_number(folder: Path) -> tuple[int, str]:
    """ImageNet-V2's folders are 0 to 999, and 10 comes after 9."""
    return int(folder.name), folder.name


def _class_to_index(spec: ImagesSet, folders: Sequence[Path], label_names: Sequence[str] | None) -> dict[str, int]:
    if spec.class_to_index is not None:
        return spec.class_to_index
    names = [folder.name for folder in folders]
    if label_names is not None and set(names) <= set(label_names):
        return {name: list(label_names).index(name) for name in names}
    return {name: label for label, name in enumerate(names)}
