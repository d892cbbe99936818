"""Numbers of stored tensors as float64, by either library, whatever dtype they are stored in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.numbers import CODES, first_numbers, read_as, read_numbers, small_runs
from soupcli.checkpoints.open import open_checkpoint
from soupcli.files.reading import FileVersion, read_at
from soupcli.mixing.arithmetic.arrays import Library

FLOATS = [dtype for dtype in Dtype if dtype.is_floating_point]


@pytest.mark.parametrize("library", [np, torch], ids=["numpy", "torch"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_dtype(tmp_path: Path, dtype: Dtype, library: Library) -> None:
    """A part of a tensor, NaNs included, as it is and in a dtype that holds it."""
    stored = torch.tensor([8.0, 1.5, -0.25, torch.nan, 0.0], dtype=torch.float64).to(dtype.torch)
    save_file({"a": stored}, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    found = read_numbers(checkpoint, "a", 1, 3, library=library)
    assert type(found).__module__ == library.__name__ and found.dtype == library.float64
    np.testing.assert_array_equal(found, [1.5, -0.25, np.nan])
    for name in ("float32", "float64"):
        out = library.empty(4, dtype=getattr(library, name))
        read_as(checkpoint, "a", 0, Dtype(name), out)
        np.testing.assert_array_equal(out, [8.0, 1.5, -0.25, np.nan])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_first_numbers(tmp_path: Path, dtype: Dtype) -> None:
    """The first elements of any dtype, no more than there are."""
    save_file({"a": torch.tensor([8.0, 1.5, -0.25]).to(dtype.torch)}, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    assert [list(first_numbers(checkpoint, "a", count)) for count in (0, 2, 4)] == [[], [8.0, 1.5], [8.0, 1.5, -0.25]]


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_small_runs(tmp_path: Path, dtype: Dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors side by side are read at once, up to the next of another dtype; each number belongs to its tensor."""
    stored = {f"{at}": torch.full((at % 3 + 1,), float(at)).to(dtype.torch) for at in range(100)}
    other = torch.float16 if dtype is Dtype.FLOAT32 else torch.float32
    save_file(stored | {"between": torch.ones(2, dtype=other)}, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    reads: list[FileVersion] = []

    def noted(file: FileVersion, offset: int, out: torch.Tensor | memoryview) -> None:
        reads.append(file)
        read_at(file, offset, out)

    monkeypatch.setattr("soupcli.checkpoints.checkpoint.read_at", noted)
    found = list(small_runs(checkpoint, [name for name in stored if name != "50"]))
    assert sorted(name for run, _ in found for name in run) == sorted(stored.keys() - {"50"})
    for run, numbers in found:
        assert list(numbers) == [float(name) for name in run for _ in range(int(name) % 3 + 1)]
    assert len(reads) == len(found) <= 4


def test_complex(tmp_path: Path) -> None:
    """Real and imaginary parts in turn."""
    save_file({"a": torch.tensor([0j, 1 - 2j, 3j])}, tmp_path / "a.safetensors")
    found = read_numbers(open_checkpoint(tmp_path / "a.safetensors"), "a", 1, 2)
    assert found.tolist() == [1, -2, 0, 3]
