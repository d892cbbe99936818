"""What torch.save writes: every kind of tensor is read as it was saved, and nothing in the file runs."""

from __future__ import annotations

import argparse
import datetime
import enum
import os
import pickle
import sys
import zipfile
from collections import OrderedDict, defaultdict, deque
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from soupcli.checkpoints.find import find
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.checkpoint_tensors import assert_broken_copies_are_refused, assert_same, opened, read, small_net

EVIDENCE: list[str] = []


def leave_evidence(word: str) -> None:
    """What must not be called."""
    EVIDENCE.append(word)


class Config:
    """A class of the user's, as hyper-parameters hold them."""

    def __init__(self) -> None:
        self.width = 3


class Settings(dict):  # type: ignore[type-arg]
    """A dict of the user's, with items."""


class Kind(enum.Enum):
    """A choice of the user's."""

    ONE = 1


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (leave_evidence, ("ran",))


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def test_kinds_of_tensors(tmp_path: Path) -> None:
    """Views, transposes, expanded, tied, empty, scalar and narrow tensors come out as they went in."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = OrderedDict(
        view=base[1:3, 2:5],
        transposed=base.T,
        channels_last=torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        expanded=torch.randn(1, 3).expand(4, 3),
        tied=base,
        empty=torch.empty(0, 3),
        scalar=torch.tensor(7),
        half=torch.randn(5).to(torch.bfloat16),
        flags=torch.tensor([True, False]),
        parameter=nn.Parameter(torch.randn(3)),
        complex=torch.randn(2, dtype=torch.complex64),
    )
    assert_same(opened(saved(tmp_path / "x.pt", state)), state)


@pytest.mark.parametrize(("start", "count"), [(0, 5), (7, 1), (11, 13), (0, 120), (119, 1), (5, 0)])
def test_parts_of_strided_tensors(tmp_path: Path, start: int, count: int) -> None:
    """Any part of a tensor that does not lie in row-major order is that part of the dense one."""
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    checkpoint = open_checkpoint(saved(tmp_path / "x.pt", {"t": tensor, "u": tensor.permute(3, 1, 0, 2)}))
    for name, dense in {"t": tensor, "u": tensor.permute(3, 1, 0, 2)}.items():
        assert torch.equal(read(checkpoint, name, start, count), dense.reshape(-1)[start : start + count])


def test_objects_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of any class open without a flag, and their modules need not exist any more."""
    state = small_net().state_dict()
    content = {
        "state_dict": state,
        "args": argparse.Namespace(lr=0.1, names=["a"]),
        "cfg": Config(),
        "table": Settings(a=1),
        "d": defaultdict(list, b=[1]),
        "out": Path("runs"),
        "best": numpy.float64(0.5),
        "history": numpy.zeros(3),
        "when": datetime.datetime.now(tz=datetime.UTC),
        "kinds": {Kind.ONE: Kind},
        "logs": deque([1], maxlen=3),
        "call": partial(leave_evidence, "word"),
    }
    path = saved(tmp_path / "x.pt", content)
    monkeypatch.delattr(sys.modules[__name__], "Config")
    assert_same(opened(path), state)
    assert EVIDENCE == []


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    """What a pickle calls is not called, whatever it is and whatever flags are given."""

    class System:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "evidence"),))

    state = small_net().state_dict()
    path = saved(tmp_path / "x.pt", {"state_dict": state, "x": Runs(), "y": System()})
    for allow in ((), (f"{__name__}.leave_evidence", "posix.mkdir")):
        assert_same(opened(path, allow=allow), state)
    assert EVIDENCE == []
    assert not (tmp_path / "evidence").exists()


def test_flags_that_are_not_needed_any_more(tmp_path: Path) -> None:
    """--allow-class and --trust are taken and do nothing; a line says so once."""
    for name in "ab":
        saved(tmp_path / f"{name}.pt", {"weight": torch.full((2,), float(ord(name)))})
    found = find([str(tmp_path / "*.pt")], how=How(allow=("a.B", "c.D"), trust=True))
    assert [note.partition(" is")[0] for note in found.notes] == ["--allow-class", "--trust"]


def test_an_object_among_the_weights_is_named(tmp_path: Path) -> None:
    """An object of an unknown class in a bare state dict may be a weight: a note says that it is left out."""
    checkpoint = open_checkpoint(saved(tmp_path / "x.pt", {"a": torch.ones(2), "b": Config(), "c": Path("x")}))
    assert sorted(checkpoint.tensors) == ["a"]
    assert checkpoint.origin.notes == (f"left out, since they are no tensors: 'b' ({__name__}.Config)",)


def test_torchscript_is_refused(tmp_path: Path) -> None:
    """A TorchScript archive, e.g. OpenAI's CLIP, is a program: the error says how to get its weights."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"")
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="TorchScript") as refused:
        open_checkpoint(tmp_path / "x.pt")
    assert "torch.jit.load" in str(refused.value.hint)


def test_compressed_archive_is_refused(tmp_path: Path) -> None:
    """A zip bomb has to be compressed, and torch.save never compresses."""
    whole = saved(tmp_path / "x.pt", small_net().state_dict())
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for info in archive.infolist():
            packed.writestr(info.filename, archive.read(info))
    with pytest.raises(CheckpointError, match="compressed"):
        open_checkpoint(tmp_path / "y.pt")


def test_a_save_that_was_cut_short(tmp_path: Path) -> None:
    """An archive that torch.save began and did not finish is no archive of other things."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/.data/serialization_id", b"1")
        archive.writestr("x/version", b"3")
    with pytest.raises(CheckpointError, match="the program ended before it was written") as refused:
        open_checkpoint(tmp_path / "x.pt")
    assert "save it again" in str(refused.value.hint)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """A tuple for a name is called that."""
    with pytest.raises(CheckpointError, match="has a tuple for a name"):
        open_checkpoint(saved(tmp_path / "x.pt", {"w": torch.ones(1), ("a", 1): torch.ones(1)}))


def test_other_byte_order_is_refused(tmp_path: Path) -> None:
    """Weights of a big-endian machine are not read as if they were ours."""
    whole = saved(tmp_path / "x.pt", {"w": torch.ones(3)})
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(tmp_path / "y.pt", "w") as turned:
        for info in archive.infolist():
            turned.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else archive.read(info))
    with pytest.raises(CheckpointError, match="byte order"):
        open_checkpoint(tmp_path / "y.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        (torch.ones(3), "holds a tensor"),
        ({"epoch": 3, "lr": 0.1}, "no state dict"),
        ({}, "no state dict"),
        ({"w": torch.ones(3).to_sparse()}, "a sparse tensor"),
        ({"w": torch.ones(3, dtype=torch.complex128)}, "complex128"),
    ],
    ids=["list", "tensor", "numbers", "empty", "sparse", "complex128"],
)
def test_what_is_no_state_dict(tmp_path: Path, content: object, message: str) -> None:
    """Each other content is refused by what it is."""
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(saved(tmp_path / "x.pt", content))


def test_pickle_is_no_archive(tmp_path: Path) -> None:
    """A plain pickle is not a checkpoint, and is not opened."""
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(CheckpointError, match="is a plain pickle, not written by"):
        open_checkpoint(tmp_path / "x.pt")
    assert EVIDENCE == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_broken_files_are_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    """However a file is cut or changed, it opens as a checkpoint or ends in one line; what it opens as can be read."""
    path = tmp_path / "whole.pt"
    if not path.exists():
        saved(path, {"state_dict": small_net().state_dict(), "metric": 0.5})
    assert_broken_copies_are_refused(path, data)
