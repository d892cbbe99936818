"""`{images: /data/imagenet/val}`: one folder of pictures for each class, decoded by the network's own transform."""

from __future__ import annotations

import hashlib
import os
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

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def fingerprint(spec: ImagesSet) -> str:
    """Of names, sizes and times of all files, and of the labels."""
    digest = hashlib.sha256()
    for path, label in _labelled(spec):
        stat = path.stat()
        digest.update(f"{path.relative_to(spec.images)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{label}\n".encode())
    return f"images:{digest.hexdigest()}"


def load(
    spec: ImagesSet, pictures: Pictures, *, workers: int | None = None, progress: Progress = silent
) -> ArrayExamples:
    """All pictures, decoded once by `workers` threads (None: one for each core) and kept as uint8 [N, C, H, W].

    Raises ValidationError for an empty folder and for a file that is not a picture.
    """
    labelled = _labelled(spec)
    image_module = need("PIL.Image", extra="images")
    first = _decode(image_module, pictures, labelled[0][0])
    inputs = torch.empty((len(labelled), *first.shape), dtype=first.dtype)

    def decode_into(index: int) -> None:
        pixels = _decode(image_module, pictures, labelled[index][0])
        if pixels.shape != first.shape:
            shapes = f"{list(pixels.shape)}, {labelled[0][0]} {list(first.shape)}"
            raise ValidationError(f"{labelled[index][0]}: becomes {shapes}", hint="the transform must crop to one size")
        inputs[index] = pixels

    with ThreadPoolExecutor(max(1, workers if workers is not None else os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(decode_into, range(len(labelled))), 1):
            progress(f"decoding {spec.images}", done, len(labelled))
    labels = torch.tensor([label for _, label in labelled])
    return ArrayExamples(inputs, labels, fingerprint(spec), pictures.normalise)


def _decode(image_module: Any, pictures: Pictures, path: Path) -> Tensor:
    try:
        with image_module.open(path) as picture:
            return pictures.decode(picture.convert(pictures.mode))
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as cause:
        raise ValidationError(f"{path}: not a readable picture: {cause}", hint="remove or replace it") from cause


def _labelled(spec: ImagesSet) -> list[tuple[Path, int]]:
    """Every picture below the folder and its label, sorted by path."""
    if not spec.images.is_dir():
        raise ValidationError(f"{spec.images}: no such folder", hint="images: takes a folder of class folders")
    folders = sorted(entry for entry in spec.images.iterdir() if entry.is_dir())
    index = spec.class_to_index or {folder.name: label for label, folder in enumerate(folders)}
    labelled: list[tuple[Path, int]] = []
    for folder in folders:
        if folder.name not in index:
            raise ValidationError(
                f"{folder}: class_to_index has no {folder.name!r}{suggestion(folder.name, index)}",
                hint="add it, or move the folder away",
            )
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        labelled += [(path, index[folder.name]) for path in files]
    if not labelled:
        raise ValidationError(f"{spec.images}: holds no pictures", hint="images: takes a folder of class folders")
    return labelled
