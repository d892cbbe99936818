"""Work grows with what there is to read, not with its square: counted in lines of Python, which no machine changes."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.compare.agreement import check_agreement, check_mixable
from soupcli.checkpoints.compare.differences import survey
from soupcli.checkpoints.compare.products import check_products
from soupcli.checkpoints.find import find
from soupcli.checkpoints.formats import safetensors
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import CheckpointError, MixError
from soupcli.evaluation.hardest_first import Difficulty
from soupcli.files.reading import FileVersion
from tests.helpers.operations import operations

EVERYTHING = TensorFilter()
FEW, FACTOR = 60, 4  # four times as many
FULL = {"doubled_keys": 15_000, "difficulty": 2_000}  # what is quick enough is also tried at the size that people have
Work = Callable[[Path, int], Callable[[], object]]


def header(path: Path, entries: list[tuple[str, dict[str, object]]], nbytes: int, *, times: int = 1) -> Path:
    """A safetensors file with these entries in its header, each so many times."""
    once = ", ".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries)
    text = "{" + ", ".join([once] * times) + "}"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(nbytes))
    return path


def entry(at: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [4 * at, 4 * at + 4]}


def doubled_keys(folder: Path, count: int) -> Callable[[], object]:
    """A header in which each of `count` keys stands twice."""
    entries = [(f"layer.{number}.weight", entry(number)) for number in range(count)]
    file = header(folder / f"{count}.safetensors", entries, 4 * count, times=2)

    def opened() -> None:
        with contextlib.suppress(CheckpointError):
            open_checkpoint(file)

    return opened


def other_names(folder: Path, count: int) -> Callable[[], object]:
    """Two checkpoints of `count` tensors without one name in common."""
    files = [
        header(folder / f"{word}{count}.safetensors", [(f"{word}.{n}.w{n}", entry(n)) for n in range(count)], 4 * count)
        for word in ("one", "other")
    ]
    checkpoints = [open_checkpoint(file) for file in files]

    def compared() -> None:
        survey(checkpoints, EVERYTHING)
        check_products(checkpoints, EVERYTHING)
        with contextlib.suppress(MixError):
            check_mixable(checkpoints)

    return compared


def ingredients(folder: Path, count: int) -> Callable[[], object]:
    """`count` checkpoints, found and compared."""
    for number in range(count):
        (folder / f"{count}/{number}").mkdir(parents=True)
        save_file({"w": torch.full((2,), float(number))}, folder / f"{count}/{number}/model.safetensors")

    def found() -> None:
        checkpoints = find([f"{folder}/{count}/*/"]).checkpoints
        check_agreement(checkpoints)
        check_products(checkpoints, EVERYTHING)
        check_mixable(checkpoints)
        survey(checkpoints, EVERYTHING)

    return found


def difficulty(_folder: Path, count: int) -> Callable[[], object]:
    """A greedy search over `count` ingredients, each tried beside the members so far: here always the first two."""

    def searched() -> None:
        found = Difficulty()
        for number in range(count):
            found.add([str(number)], torch.zeros(4, dtype=torch.uint8))
        for number in range(count):
            found.expected({"0": 0.5, str(number): 0.5})

    return searched


def opened_once(folder: Path, count: int) -> Callable[[], object]:
    """`count` folders of checkpoints, each looked for and opened."""
    for number in range(count):
        (folder / f"{count}/{number}").mkdir(parents=True)
        save_file({"w": torch.full((2,), float(number))}, folder / f"{count}/{number}/model.safetensors")
    return lambda: find([f"{folder}/{count}/*/"])


def test_each_header_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells that a folder is a checkpoint opens it, and nothing opens it a second time."""
    seen: list[Path] = []
    read = safetensors.read_header

    def noted(file: FileVersion) -> Any:
        seen.append(file.path)
        return read(file)

    monkeypatch.setattr(safetensors, "read_header", noted)
    opened_once(tmp_path, 5)()
    assert sorted(seen) == sorted(tmp_path.glob("5/*/model.safetensors"))


@pytest.mark.parametrize("work", [doubled_keys, other_names, ingredients, difficulty])
def test_work_grows_with_what_is_read(work: Work, tmp_path: Path) -> None:
    """Four times as much is at most five times the work; its square would be sixteen."""
    operations(work(tmp_path, 2))  # what is imported late
    few, many = (operations(work(tmp_path, count)) for count in (FEW, FACTOR * FEW))
    assert many < 5 * few, f"{few} lines for {FEW}, {many} for {FACTOR * FEW}"
    full = FULL.get(work.__name__, 0)
    assert not full or operations(work(tmp_path, full)) < 1.25 * many * full / (FACTOR * FEW)
