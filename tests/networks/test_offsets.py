"""Offsets from the mean: what they add up to, where they are kept, and what memory they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.errors import UsageError
from soupcli.networks import offsets, pieces
from soupcli.networks.offsets import InMemory, OnDisk, Reader, Source
from soupcli.networks.pieces import Piece, divide
from soupcli.networks.residence import Where
from tests.learned_toys import CPU, written

COUNT, SIZE = 3, 5000


@pytest.fixture
def ingredients(tmp_path: Path) -> list[Checkpoint]:
    generator = torch.Generator().manual_seed(0)
    return written(tmp_path, [{"a": torch.randn(SIZE, generator=generator)} for _ in range(COUNT)])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 12_000)
    monkeypatch.setattr(pieces, "ROW_BYTES", 100)
    monkeypatch.setattr(offsets, "WIDTH", 64)
    monkeypatch.setattr(offsets, "HELD_BYTES", 32_000)  # two pieces of five, with their means


SOURCES: dict[str, Callable[[Reader], Source]] = {
    "disk": OnDisk,
    "host": lambda reader: InMemory(reader, "host"),
    "device": lambda reader: InMemory(reader, "device"),
}


def whole(source: Source, found: list[Piece], *, again: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Mean [n] and offsets [k, n] of each piece, put together from copies of its blocks."""
    made = []
    for piece in found:
        blocks = [(b.part, b.mean_m.clone(), b.offsets_km.clone()) for b in source.blocks(piece, again=again)]
        assert [part.start for part, _, _ in blocks] == list(range(0, piece.numel, offsets.WIDTH))
        made.append((torch.cat([mean for _, mean, _ in blocks]), torch.cat([o for _, _, o in blocks], dim=1)))
    return made


@pytest.mark.parametrize("where", SOURCES)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_add_up(tmp_path: Path, small: None, where: str, stored: torch.dtype) -> None:
    """Mean plus offset is the ingredient; offsets sum to nothing; the second time they are the same."""
    generator = torch.Generator().manual_seed(0)
    states = [{"a": torch.randn(SIZE, generator=generator).to(stored)} for _ in range(COUNT)]
    made = written(tmp_path, states)
    found = divide({"a": torch.float32}, made)
    assert len(found) > 3
    source = SOURCES[where](Reader(made, CPU))
    first, second, third = whole(source, found, again=True), whole(source, found), whole(source, found)
    wide = torch.float64 if stored == torch.float64 else torch.float32
    stacked = torch.stack([state["a"] for state in states]).to(wide)
    mean_n = torch.cat([mean for mean, _ in first])
    offsets_kn = torch.cat([offset for _, offset in first], dim=1)
    assert mean_n.dtype == offsets_kn.dtype == wide
    torch.testing.assert_close(mean_n + offsets_kn, stacked, rtol=0, atol=4 * torch.finfo(wide).eps)
    assert offsets_kn.sum(dim=0).abs().max() < 8 * torch.finfo(wide).eps * stacked.abs().max()
    for other in (second, third):
        assert all(
            torch.equal(a, b) for one, two in zip(first, other, strict=True) for a, b in zip(one, two, strict=True)
        )


def test_memory_on_disk(ingredients: list[Checkpoint], small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held for the second time fits its limit, is not read again, and its memory is used again and again."""
    reads: list[tuple[str, int]] = []
    read = offsets._read_as

    def noted(checkpoint: Checkpoint, name: str, start: int, out_n: Tensor) -> None:
        reads.append((name, start))
        read(checkpoint, name, start, out_n)

    monkeypatch.setattr(offsets, "_read_as", noted)
    found = divide({"a": torch.float32}, ingredients)
    source = OnDisk(Reader(ingredients, CPU))
    memory: set[int] = set()
    for _ in range(3):
        reads.clear()
        whole(source, found, again=True)
        assert len(source._held) == 2
        memory |= {held.offsets_kn.data_ptr() for held in source._held.values()}
        whole(source, found)
        assert not source._held
        assert len(reads) == COUNT * (2 * len(found) - 2)
    assert len(memory) == 2


@pytest.mark.parametrize("where", [place for place in get_args(Where) if place != "disk"])
def test_memory_that_is_not_there(
    ingredients: list[Checkpoint], small: None, monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    """Ingredients that do not fit where they were to live are refused with the flag, and what to do."""
    source = InMemory(Reader(ingredients, CPU), where)

    def empty(*_: object, **__: object) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.\nmore")

    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(UsageError, match=f"--resident {where}: the ingredients do not fit: .*99 bytes.$") as refused:
        next(iter(source.blocks(divide({"a": torch.float32}, ingredients)[0])))
    assert refused.value.hint == "--resident disk needs no memory for them"
