"""Many ingredients under a low open-file limit, and one of many gigabytes that takes no room on the disk."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
FILES = 256
NUMBERS = (1.5, -0.25, 3.0)  # of the middle of the sparse ingredient


def soup(words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """`soup WORDS` in a process of its own in `folder`, with few files open at once."""
    return subprocess.run(
        [sys.executable, "-m", "soupcli", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SOUP_CACHE": str(folder / "cache")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
        capture_output=True,
        text=True,
        check=False,
    )


def many(folder: Path, *, ingredients: int) -> tuple[Counter[str], list[str]]:
    """The mean of many ingredients is exact, with at most 256 files open."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(ingredients):
        save_file({"w": torch.full((4,), float(number)), "b": torch.ones(2)}, folder / f"run {number:04d}.safetensors")
    ran = soup(["uniform", "--ckpts", "run *.safetensors", "--quiet"], folder)
    if ran.returncode:
        return Counter(), [f"{ingredients} ingredients: exit code {ran.returncode}: {ran.stderr[-300:]}"]
    mean = load_file(folder / "soup/model.safetensors")["w"].tolist()
    wrong = mean != [(ingredients - 1) / 2] * 4
    return Counter({"ingredients under 256 open files": ingredients}), [f"the mean is {mean}"] if wrong else []


def sparse(file: Path, *, gigabytes: float, first: int, tensors: int = 4) -> None:
    """A safetensors file of bfloat16 zeros but for `first` and, in the middle, NUMBERS; it takes no disk."""
    each = int(gigabytes * 10**9) // tensors // 2
    header = {
        f"layer.{number}": {
            "dtype": "BF16",
            "shape": [each],
            "data_offsets": [2 * each * number, 2 * each * (number + 1)],
        }
        for number in range(tensors)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    middle = torch.tensor(NUMBERS, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + struct.pack("<H", first))
        out.truncate(8 + len(text) + 2 * each * tensors)
        out.seek(8 + len(text) + 2 * (each * tensors // 2))
        out.write(middle)


def one(folder: Path, *, gigabytes: float, memory: int = 1_500_000_000) -> tuple[Counter[str], list[str]]:
    """The mean of two ingredients of many gigabytes, in little memory and with as much room as their numbers take."""
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < gigabytes * 10**9 * 1.05:
        return Counter(), [f"{gigabytes} GB: skipped, {folder} has not so many free"]
    for number, name in enumerate("ab"):
        sparse(folder / f"{name}.safetensors", gigabytes=gigabytes, first=number)
    words = ["uniform", "--ckpts", "a.safetensors", "b.safetensors", "--json", "--max-shard-size", "100GB"]
    ran = soup(words, folder)
    if ran.returncode:
        return Counter(), [f"{gigabytes} GB: exit code {ran.returncode}: {ran.stderr[-300:]}"]
    peak = json.loads(ran.stdout)["cost"]["peak_bytes"]["host"]
    written = folder / "soup/model.safetensors"
    size, on_disk = written.stat().st_size, written.stat().st_blocks * 512
    with written.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        file.seek(8 + length + (size - 8 - length) // 4 * 2)
        middle = torch.frombuffer(bytearray(file.read(6)), dtype=torch.bfloat16).tolist()
    broken = []
    if middle != list(NUMBERS):
        broken.append(f"{gigabytes} GB: the middle is {middle}")
    if peak > memory:
        broken.append(f"{gigabytes} GB: {peak} bytes of memory, at most {memory} were expected")
    shutil.rmtree(folder)
    counts = {"bytes of one ingredient": size, "bytes of its soup on the disk": on_disk, "peak bytes of memory": peak}
    return Counter(counts), broken
