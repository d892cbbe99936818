"""Pictures for tests: noise of a seed, written by PIL in the format that the file's name says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image


def noise(file: Path, *, size: tuple[int, int] = (40, 30), seed: int = 0, mode: str = "RGB") -> Path:
    """Writes a picture of `size` (width, height) and returns its path."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=generator)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.numpy()).convert(mode).save(file)
    return file


def class_folders(
    folder: Path, counts: Mapping[str, int], *, size: tuple[int, int] = (40, 30)
) -> list[tuple[Path, int]]:
    """A folder of class folders with JPEG, PNG and WebP files of several sizes; files and labels, sorted by path."""
    made: list[tuple[Path, int]] = []
    for label, (name, count) in enumerate(sorted(counts.items())):
        for number in range(count):
            suffix = (".jpg", ".png", ".webp", ".JPEG")[number % 4]
            wide = (size[0] + 7 * (number % 3), size[1] + 5 * (number % 2))
            made.append((noise(folder / name / f"{number}{suffix}", size=wide, seed=1000 * label + number), label))
    return sorted(made)
