"""Offsets from the first ingredient: what they add up to, where they are kept, what is read at once, what memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from soupcli.checkpoints import checkpoint as checkpoints
from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.dtype import Dtype
from soupcli.errors import UsageError
from soupcli.files import reading
from soupcli.files.reading import FileVersion
from soupcli.networks.learned import offsets as sources
from soupcli.networks.learned import pieces
from soupcli.networks.learned.offsets import InMemory, OffsetSource, OnDisk, Reader
from soupcli.networks.learned.pieces import OffsetPiece, divide
from soupcli.networks.learned.residence import Where
from tests.helpers.learned_toys import CPU, written

COUNT, SIZE = 3, 5000


@pytest.fixture
def ingredients(tmp_path: Path) -> list[Checkpoint]:
    generator = torch.Generator().manual_seed(0)
    return written(tmp_path, [{"a": torch.randn(SIZE, generator=generator)} for _ in range(COUNT)])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 12_000)
    monkeypatch.setattr(pieces, "ROW_BYTES", 100)
    monkeypatch.setattr(sources, "HELD_BYTES", 25_000)  # two pieces of five


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each read from a file."""
    found: list[int] = []
    read_at = reading.read_at

    def noted(file: FileVersion, offset: int, out: Tensor | memoryview) -> None:
        found.append(len(out))
        read_at(file, offset, out)

    monkeypatch.setattr(checkpoints, "read_at", noted)
    return found


SOURCES: dict[str, Callable[[Reader, list[OffsetPiece]], OffsetSource]] = {
    "disk": lambda reader, group: OnDisk(reader, [group]),
    "host": lambda reader, group: InMemory(reader, "host"),
    "device": lambda reader, group: InMemory(reader, "device"),
}


def whole(source: OffsetSource, found: Sequence[OffsetPiece], *, again: bool = False) -> tuple[Tensor, Tensor]:
    """The first ingredient [n] and offsets [j, n] of all pieces, put together from copies of their blocks."""
    firsts, offsets = [], []
    for piece in found:
        sizes = [min(64, piece.numel - at) for at in range(0, piece.numel, 64)]
        for first_m, offsets_jm in source.blocks(piece, sizes, again=again):
            firsts.append(first_m.clone())
            offsets.append(offsets_jm.clone())
    return torch.cat(firsts), torch.cat(offsets, dim=1)


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("where", SOURCES)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_add_up(tmp_path: Path, small: None, where: str, stored: torch.dtype) -> None:
    """The first ingredient plus an offset is another ingredient; the second time they are the same."""
    generator = torch.Generator().manual_seed(0)
    states = [{"a": torch.randn(SIZE, generator=generator).to(stored)} for _ in range(COUNT)]
    made = written(tmp_path, states)
    found = divide({"a": Dtype.FLOAT32}, made)
    assert len(found) > 3
    source = SOURCES[where](Reader(made, CPU), found)
    once = whole(source, found, again=True)
    wide = torch.float64 if stored == torch.float64 else torch.float32
    stacked = torch.stack([state["a"] for state in states]).to(wide)
    first_n, offsets_jn = once
    assert first_n.dtype == offsets_jn.dtype == wide
    assert torch.equal(first_n, stacked[0])
    torch.testing.assert_close(first_n + offsets_jn, stacked[1:], rtol=0, atol=4 * torch.finfo(wide).eps)
    assert all(same(whole(source, found), once) for _ in range(2))


def test_memory_on_disk(ingredients: list[Checkpoint], small: None, reads: list[int]) -> None:
    """What is held for the second time fits its limit and is not read again; the next group takes its place."""
    found = divide({"a": Dtype.FLOAT32}, ingredients)
    assert len(found) == 5
    source = OnDisk(Reader(ingredients, CPU), [found[:3], found[3:]])
    assert source._memory.numel() <= sources.HELD_BYTES
    for _ in range(2):
        for group, held in ((found[:3], 2), (found[3:], 2)):
            reads.clear()
            first = whole(source, group, again=True)
            assert same(whole(source, group), first)
            assert len(reads) == COUNT * (2 * len(group) - held)
            assert not source._held


def test_side_by_side(tmp_path: Path, reads: list[int]) -> None:
    """Tensors that follow one another in all files are read at once; where one file differs, each by itself."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"a": 3, "b": 5, "c": 2}
    states = [{name: torch.randn(n, generator=generator) for name, n in sizes.items()} for _ in range(COUNT)]
    alike = written(tmp_path / "alike", states)
    other = written(tmp_path / "other", [{**states[0], "a0": torch.zeros(4)}])
    for found, calls in ((alike, COUNT), ([*alike, *other], (COUNT + 1) * 2)):
        (piece,) = divide(dict.fromkeys(["c", "a", "b"], Dtype.FLOAT32), found)
        assert [span.name for span in piece.spans] == ["a", "b", "c"]
        reads.clear()
        raw_kn = Reader(found, CPU).raw(piece)
        assert len(reads) == calls
        assert torch.equal(raw_kn[0], torch.cat(list(states[0].values())))
        assert torch.equal(raw_kn[-1], torch.cat(list(states[0 if len(found) > COUNT else -1].values())))


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
        source.blocks(divide({"a": Dtype.FLOAT32}, ingredients)[0], [SIZE])
    assert refused.value.hint == "--resident disk needs no memory for them"
