"""Sets of arrays: two tensors in one file, and errors that say what the file has instead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from soupcli.datasets import arrays
from soupcli.datasets.load import remarks
from soupcli.errors import ValidationError
from soupcli.recipe.sets import ArraysSet


def written(folder: Path, **tensors: Tensor) -> ArraysSet:
    """A set with these tensors."""
    save_file(tensors, folder / "val.safetensors")
    return ArraysSet(arrays=folder / "val.safetensors")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_reads_inputs_and_labels(dtype: torch.dtype, tmp_path: Path) -> None:
    """Inputs keep their dtype, labels of any integer dtype become int64."""
    inputs, labels = torch.randn(5, 2, 3, dtype=torch.float16), torch.arange(5, dtype=dtype)
    found = arrays.load(written(tmp_path, inputs=inputs, labels=labels))
    assert torch.equal(found.inputs, inputs)
    assert found.inputs.dtype == torch.float16
    assert found.labels.tolist() == [0, 1, 2, 3, 4]
    assert found.labels.dtype == torch.int64
    assert torch.equal(found.batch(torch.tensor([3, 1]), torch.device("cpu")), inputs[[3, 1]])


def test_torch_files(tmp_path: Path) -> None:
    """What torch.save wrote is read too."""
    torch.save({"inputs": torch.ones(2, 2), "labels": torch.zeros(2, dtype=torch.int64)}, tmp_path / "val.pt")
    assert len(arrays.load(ArraysSet(arrays=tmp_path / "val.pt")).labels) == 2


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64)),
        (torch.zeros(()), torch.zeros((), dtype=torch.int64)),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.complex64)),
    ],
)
def test_what_does_not_go_together(inputs: Tensor, labels: Tensor, tmp_path: Path) -> None:
    """Other shapes, no examples, and labels that are no numbers are errors with both shapes."""
    with pytest.raises(ValidationError, match=r"val\.safetensors: labels are \w+ \[.*\], inputs \["):
        arrays.load(written(tmp_path, inputs=inputs, labels=labels))


def test_other_tensors(tmp_path: Path) -> None:
    """Tensors with a row for each example that no network gets are named, others are not."""
    mask, scale = torch.ones(4, 3), torch.ones(7)
    spec = written(tmp_path, inputs=torch.ones(4, 3), labels=torch.arange(4), attention_mask=mask, scale=scale)
    [said] = remarks({"val": spec})
    assert "attention_mask: not read" in said
    assert "scale" not in said
    assert remarks({"val": written(tmp_path, inputs=mask, labels=torch.arange(4))}) == []


def test_missing_tensors(tmp_path: Path) -> None:
    """The error names the tensor, the nearest one and all that there are."""
    with pytest.raises(ValidationError, match=r"has no tensor 'labels', did you mean 'label'\?") as raised:
        arrays.load(written(tmp_path, inputs=torch.zeros(1, 1), label=torch.zeros(1, dtype=torch.int64)))
    assert str(raised.value.hint) in ("it has inputs, label", "it has label, inputs")


def test_not_such_a_file(tmp_path: Path) -> None:
    """A missing file, a folder and a file of something else are errors that name it."""
    for name, message in (("nowhere.safetensors", "no such file"), ("", "is a folder, not a file")):
        with pytest.raises(ValidationError, match=message):
            arrays.load(ArraysSet(arrays=tmp_path / name))
    (tmp_path / "val.npz").write_bytes(b"\x93NUMPY and so on")
    with pytest.raises(ValidationError, match=r"val\.npz: is a numpy array") as raised:
        arrays.load(ArraysSet(arrays=tmp_path / "val.npz"))
    assert raised.value.hint == "arrays: takes a safetensors file"


def test_fingerprint(tmp_path: Path) -> None:
    """It changes with the content and not with the path."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    spec = written(tmp_path / "a", inputs=torch.zeros(1, 1), labels=torch.zeros(1, dtype=torch.int64))
    same = written(tmp_path / "b", inputs=torch.zeros(1, 1), labels=torch.zeros(1, dtype=torch.int64))
    assert arrays.fingerprint(spec) == arrays.fingerprint(same)
    other = written(tmp_path / "b", inputs=torch.zeros(1, 1), labels=torch.ones(1, dtype=torch.int64))
    assert arrays.fingerprint(spec) != arrays.fingerprint(other)
