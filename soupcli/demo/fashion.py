"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 70,000 photographs of clothes, from a Debian package.

    soup demo images FOLDER

The package `dataset-fashion-mnist` is read if it is installed; else apt-get fetches it and dpkg-deb unpacks it
into the cache folder, which takes no root. Elsewhere the four .gz files may be put into that folder by hand.
"""

from __future__ import annotations

import gzip
import math
import shutil
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from soupcli.environment import cache_folder
from soupcli.errors import SoupError
from soupcli.files.unfinished import scratch_folder
from soupcli.progress import Progress, silent

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # where the package puts its files
IN_THE_FILES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
CLASSES = tuple(sorted(IN_THE_FILES))  # the order of class folders, and so of the logits
PARTS = ("train", "t10k")  # 60,000 and 10,000 pictures
SIDE = 28
LARGEST = 16 + 60_000 * SIDE * SIDE  # bytes of an unpacked file
HINT = f"apt-get install {PACKAGE}"


@dataclass(frozen=True)
class Photographs:
    """Grey pictures of one article each, light on black, with their labels."""

    pixels: Tensor  # (n, 28, 28) uint8
    labels: Tensor  # (n,) int64, indices into CLASSES


def load(progress: Progress = silent) -> Photographs:
    """Returns all pictures of both parts in the order of the files, each different picture once.

    Raises SoupError if the package is neither there nor can be fetched, or a file of it is damaged.
    """
    folder = _find() or _fetch(progress)
    pixels = torch.cat([_read_idx(_images(folder, part), dimensions=3) for part in PARTS])
    labels = torch.cat([_read_idx(_labels(folder, part), dimensions=1) for part in PARTS]).long()
    if pixels.shape != (len(labels), SIDE, SIDE) or len(labels) == 0 or int(labels.max()) >= len(CLASSES):
        found = f"pictures {list(pixels.shape)}, labels {list(labels.shape)}"
        raise SoupError(f"{folder}: not Fashion-MNIST: {found}", hint=HINT)
    labels = torch.tensor([CLASSES.index(name) for name in IN_THE_FILES])[labels]
    first = {picture.tobytes(): index for index, picture in reversed(list(enumerate(pixels.numpy())))}
    kept = torch.tensor(sorted(first.values()))
    return Photographs(pixels[kept], labels[kept])


def _images(folder: Path, part: str) -> Path:
    return folder / f"{part}-images-idx3-ubyte.gz"


def _labels(folder: Path, part: str) -> Path:
    return folder / f"{part}-labels-idx1-ubyte.gz"


def _find() -> Path | None:
    """Returns the folder that holds all four files."""
    for folder in (INSTALLED, _unpacked()):
        if all(_images(folder, part).is_file() and _labels(folder, part).is_file() for part in PARTS):
            return folder
    return None


def _unpacked() -> Path:
    return cache_folder() / "fashion-mnist"


def _fetch(progress: Progress) -> Path:
    """Fetches and unpacks the package beside its place in the cache, then moves it there; returns that folder."""
    absent = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if absent:
        raise SoupError(
            f"Fashion-MNIST: neither in {INSTALLED} nor in {_unpacked()}, and there is no {' and no '.join(absent)}",
            hint=f"{HINT}, or put the four .gz files of Fashion-MNIST into {_unpacked()}",
        )
    task = f"fetching {PACKAGE}"
    progress(task, 0, 1)
    _unpacked().parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(beside=_unpacked()) as aside:
        _run(["apt-get", "download", PACKAGE], aside)
        for archive in sorted(aside.glob("*.deb")):
            _run(["dpkg-deb", "-x", archive.name, "."], aside)
        _move(aside / INSTALLED.relative_to("/"), _unpacked())
    progress(task, 1, 1)
    found = _find()
    if found is None:
        raise SoupError(f"{_unpacked()}: {PACKAGE} holds other files than expected", hint=HINT)
    return found


def _move(source: Path, target: Path) -> None:
    """Puts the folder in its place; another process may have been faster, or a part of the files may be there."""
    if target.exists() and _find() is None:
        target.rename(source.with_name("incomplete"))
    if not target.exists():
        source.rename(target)


def _run(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
        raise SoupError(f"{' '.join(words)}: {last}", hint=f"apt-get update && {HINT}")


def _read_idx(path: Path, *, dimensions: int) -> Tensor:
    """Returns the uint8 array of an IDX file: 0 0 8 D, then D big-endian lengths of 4 bytes, then the values."""
    try:
        with gzip.open(path) as file:
            content = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as cause:
        raise SoupError(f"{path}: not a readable .gz file: {cause}", hint=HINT) from cause
    header = 4 + 4 * dimensions
    lengths = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != header + math.prod(lengths):
        raise SoupError(f"{path}: not an IDX file of bytes in {dimensions} dimensions", hint=HINT)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).reshape(lengths)
