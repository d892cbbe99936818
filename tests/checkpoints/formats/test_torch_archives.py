"""Both containers of torch.save, as every version wrote them: zip archives, and pickles with storages after them."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soupcli.checkpoints.find import find
from soupcli.checkpoints.formats.pickles.machine import Budget
from soupcli.checkpoints.formats.pickles.unpickler import Unpickler
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.checkpoint_tensors import assert_broken_copies_are_refused, assert_same, opened, small_net


def old(path: Path, content: object, protocol: int = 2) -> Path:
    """A file as torch.save wrote it before 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", range(2, 6))
def test_before_zip(tmp_path: Path, protocol: int) -> None:
    """Views, transposes, tied and narrow tensors come out of the old container as they went in."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = OrderedDict(
        view=base[1:3, 2:5],
        transposed=base.T,
        tied=base,
        empty=torch.empty(0, 3),
        scalar=torch.tensor(7),
        half=torch.randn(5).to(torch.bfloat16),
        flags=torch.tensor([True, False]),
        **small_net().state_dict(),
    )
    path = old(tmp_path / "x.pt", {"epoch": 3, "state_dict": state}, protocol)
    assert open_checkpoint(path).origin.key == "state_dict"
    assert_same(opened(path), state)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_protocols(tmp_path: Path, protocol: int) -> None:
    """Zip archives with any pickle protocol."""
    torch.save({"model": small_net().state_dict()}, tmp_path / "x.pt", pickle_protocol=protocol)
    assert_same(opened(tmp_path / "x.pt"), small_net().state_dict())


class _Reference:
    def __init__(self, name: tuple[Any, ...]) -> None:
        self.name = name


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.name if isinstance(obj, _Reference) else None


class _Rebuilt:
    """A tensor as torch 0.3 described it."""

    def __init__(self, reference: _Reference, *args: Any) -> None:
        self.args = (reference, *args)

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor, self.args


def write_old(path: Path, content: Any, storages: dict[str, bytes], sizes: dict[str, int]) -> Path:
    """The old container by hand, with the magic number, the version and what machine it was."""
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(value, file, protocol=2)
        _Pickler(file, protocol=2).dump(content)
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            file.write(struct.pack("<q", sizes[key]) + storages[key])
    return path


def test_views_of_storages(tmp_path: Path) -> None:
    """torch 0.1 to 0.3 named parts of storages: a tensor in one begins where the part does."""
    numbers = torch.arange(12, dtype=torch.float32)
    whole = _Reference(("storage", torch.FloatStorage, "7", "cpu", 12, None))
    part = _Reference(("storage", torch.FloatStorage, "7", "cpu", 12, ("8", 4, 6)))
    content = OrderedDict(whole=_Rebuilt(whole, 0, (3, 4), (4, 1)), part=_Rebuilt(part, 1, (2, 2), (2, 1)))
    path = write_old(tmp_path / "x.pth", content, {"7": numbers.numpy().tobytes()}, {"7": 12})
    assert_same(opened(path), {"whole": numbers.view(3, 4), "part": numbers[5:9].view(2, 2)})
    outside = _Reference(("storage", torch.FloatStorage, "7", "cpu", 12, ("8", 4, 900)))
    content = OrderedDict(part=_Rebuilt(outside, 0, (2, 2), (2, 1)))
    path = write_old(tmp_path / "y.pth", content, {"7": numbers.numpy().tobytes()}, {"7": 12})
    with pytest.raises(CheckpointError, match="tensor 'part' needs 16 bytes, its record has 0"):
        open_checkpoint(path)


@pytest.mark.parametrize("size", [-1, 13, 1 << 62])
def test_sizes_that_do_not_hold(tmp_path: Path, size: int) -> None:
    """A storage that is said to be larger than the file, or smaller than nothing."""
    whole = _Reference(("storage", torch.FloatStorage, "7", "cpu", 12, None))
    content = OrderedDict(w=_Rebuilt(whole, 0, (3, 4), (4, 1)))
    path = write_old(tmp_path / "x.pth", content, {"7": bytes(48)}, {"7": size})
    with pytest.raises(CheckpointError, match="storage '7' needs"):
        open_checkpoint(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_broken_files_are_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    """However an old file is cut or changed, it opens as a checkpoint or ends in one line."""
    path = tmp_path / "whole.pt"
    if not path.exists():
        old(path, {"state_dict": small_net().state_dict(), "metric": 0.5})
    assert_broken_copies_are_refused(path, data)


def test_a_pickle_that_takes_too_long_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several ask what a file holds: the budget of a pickle is spent once, and again if the file is another one."""
    path = tmp_path / "run" / "model.pt"
    path.parent.mkdir()
    read: list[int] = []
    whole = Unpickler.load

    def counted(unpickler: Unpickler) -> Any:
        read.append(1)
        return whole(unpickler)

    monkeypatch.setattr(Unpickler, "load", counted)
    monkeypatch.setattr("soupcli.checkpoints.formats.torch_archives.budget_of", lambda _: Budget(500))
    for times in (1, 2):
        torch.save({"weight": torch.ones(times), "words": [str(number) for number in range(1000)]}, path)
        for _ in range(2):
            with pytest.raises(CheckpointError, match="takes too much memory or time"):
                find([str(path.parent)])
        assert len(read) == times
