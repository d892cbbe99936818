"""The table of formats: a made-up format is one file and one row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.checkpoint import Origin, StoredTensor, TensorSpec
from soupcli.checkpoints.contents import Contents, How
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.formats import table
from soupcli.checkpoints.formats.table import FORMATS, FileFormat
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, read_bytes
from tests.helpers.checkpoint_tensors import opened

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"one tensor:"


def begins(file: FileVersion) -> bool:
    return read_bytes(file, 0, len(MAGIC)) == MAGIC


def read_header(file: FileVersion, _: How) -> Contents:
    count = (file.size - len(MAGIC)) // 4
    return Contents(
        {"w": TensorSpec((count,), Dtype.FLOAT32)}, {"w": StoredTensor(file, len(MAGIC))}, Origin("one tensor")
    )


def test_a_new_format_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a row more, its files open as paths and out of folders; without it they are refused."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/weights.one").write_bytes(MAGIC + torch.arange(3.0).numpy().tobytes())
    with pytest.raises(CheckpointError, match=r"none of torch\.save, NeMo, safetensors"):
        opened(tmp_path / "run/weights.one")
    row = FileFormat("one tensor", begins, read_header, begins)
    monkeypatch.setattr(table, "FORMATS", (*FORMATS, row))
    for path in (tmp_path / "run/weights.one", tmp_path / "run"):
        assert opened(path)["w"].tolist() == [0, 1, 2]


def test_names_without_end(tmp_path: Path) -> None:
    """Names of 40,000 letters with as many dots are refused: what compares them would take minutes."""
    save_file({"a." * 20_000 + "w": torch.ones(1)}, tmp_path / "long.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor 'a\..*' has a name of 40001 letters, at most 1000 are read"):
        opened(tmp_path / "long.safetensors")
