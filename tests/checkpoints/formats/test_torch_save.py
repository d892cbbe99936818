"""What torch.save writes: every kind of tensor is read as it was saved, and nothing in the file runs."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.tensors_of import assert_same, opened, read, small_net

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


def test_namespace_is_let_in(tmp_path: Path) -> None:
    """The arguments that training scripts put into checkpoints do not stand in the way."""
    state = small_net().state_dict()
    path = saved(tmp_path / "x.pt", {"state_dict": state, "args": argparse.Namespace(lr=0.1, names=["a"])})
    assert_same(opened(path), state)


def test_refused_classes_are_all_named(tmp_path: Path) -> None:
    """The error names every class that the file wants, and the flags that put a stand-in in their place."""
    content = {"state_dict": small_net().state_dict(), "cfg": Config(), "out": Path("runs")}
    path = saved(tmp_path / "x.pt", content)
    with pytest.raises(CheckpointError, match=r"x\.pt: not opened: beside tensors it needs pathlib\.\w+, ") as refused:
        open_checkpoint(path)
    mine = f"{Config.__module__}.Config"
    assert mine in str(refused.value)
    assert f"--allow-class {mine}" in str(refused.value.hint)
    assert "\n" not in str(refused.value)


def test_allowed_classes_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that is let in is replaced by a stand-in: its module need not exist any more."""
    state = small_net().state_dict()
    content = {"state_dict": state, "cfg": Config(), "table": Settings(a=1), "d": defaultdict(list, b=[1])}
    path = saved(tmp_path / "x.pt", content)
    monkeypatch.delattr(sys.modules[__name__], "Config")
    allow = (f"{__name__}.Config", f"{__name__}.Settings", "collections.defaultdict", "builtins.list")
    assert_same(opened(path, allow=allow), state)


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    """Not when the file is opened, and not when the function that it calls is let in by name."""
    path = saved(tmp_path / "x.pt", {"state_dict": small_net().state_dict(), "x": Runs()})
    with pytest.raises(CheckpointError, match="leave_evidence"):
        open_checkpoint(path)
    assert_same(opened(path, allow=(f"{__name__}.leave_evidence",)), small_net().state_dict())
    assert EVIDENCE == []


def test_system_functions_are_never_let_in(tmp_path: Path) -> None:
    """`os.system` stays out even where the user names it."""

    class System:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.system, ("true",))

    path = saved(tmp_path / "x.pt", {"state_dict": {}, "x": System()})
    with pytest.raises(CheckpointError, match=r"posix\.system"):
        open_checkpoint(path)
    with pytest.raises(CheckpointError, match="refused by torch's safe loader"):
        open_checkpoint(path, How(allow=("posix.system",)))


def test_a_stand_in_is_not_skipped_as_a_weight(tmp_path: Path) -> None:
    """A tensor class that was let in by name is not dropped from the state dict."""
    path = saved(tmp_path / "x.pt", {"a": torch.ones(2), "b": Config()})
    with pytest.raises(CheckpointError, match=r"'b' is a .*Config, not a tensor"):
        open_checkpoint(path, How(allow=(f"{__name__}.Config",)))


def test_torchscript_is_refused(tmp_path: Path) -> None:
    """A TorchScript archive, e.g. OpenAI's CLIP, is a program: the error says how to get its weights."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"")
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="TorchScript") as refused:
        open_checkpoint(tmp_path / "x.pt")
    assert "torch.jit.load" in str(refused.value.hint)


def test_old_format_is_refused(tmp_path: Path) -> None:
    """What torch.save wrote before 1.6 is named, with the line that saves it again."""
    path = saved(tmp_path / "x.pt", small_net().state_dict(), _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"before torch 1\.6"):
        open_checkpoint(path)


def test_compressed_archive_is_refused(tmp_path: Path) -> None:
    """A zip bomb has to be compressed, and torch.save never compresses."""
    whole = saved(tmp_path / "x.pt", small_net().state_dict())
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for info in archive.infolist():
            packed.writestr(info.filename, archive.read(info))
    with pytest.raises(CheckpointError, match="compressed"):
        open_checkpoint(tmp_path / "y.pt")


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
        (torch.ones(3), "holds a Tensor"),
        ({"epoch": 3, "lr": 0.1}, "no state dict"),
        ({}, "no state dict"),
        ({"w": torch.ones(3).to_sparse()}, "not dense"),
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
    with pytest.raises(CheckpointError, match=r"none of torch\.save, safetensors"):
        open_checkpoint(tmp_path / "x.pt")
    assert EVIDENCE == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_broken_files_are_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    """However a file is cut or changed, it opens as a checkpoint or ends in one line; what it opens as can be read."""
    path = tmp_path / "whole.pt"
    if not path.exists():
        saved(path, {"state_dict": small_net().state_dict(), "metric": 0.5})
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(whole[: data.draw(st.sampled_from([len(whole), len(whole), len(whole) - 1, len(whole) // 2]))])
    try:
        checkpoint = open_checkpoint(broken)
        for name in checkpoint.tensors:
            read(checkpoint, name)
    except CheckpointError as refused:
        assert "\n" not in str(refused)
        assert str(broken) in str(refused)
