"""Tensors in pickles: every kind that has plain bytes is read as torch reads it, every other is refused by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.masked import masked_tensor

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.checkpoint_tensors import assert_same, opened, read, small_net


class Marked(torch.Tensor):
    """A subclass of Tensor that keeps plain numbers, as fastai and MONAI have."""


class Noted(nn.Parameter):
    """A parameter with attributes of its own."""


def marked() -> torch.Tensor:
    tensor = torch.arange(3.0).as_subclass(Marked)
    tensor.meta = {"spacing": 1.0}  # type: ignore[attr-defined]
    return tensor


def noted() -> torch.Tensor:
    parameter = nn.Parameter(torch.arange(3.0))
    parameter.is_sharded = False  # type: ignore[attr-defined]
    return parameter


KINDS: dict[str, torch.Tensor] = {
    "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
    "negative": torch.randn(3, dtype=torch.complex64).conj().imag,
    "conjugate of a part": torch.randn(4, 5, dtype=torch.complex64)[1:3, ::2].conj(),
    "conjugate transposed": torch.randn(4, 5, dtype=torch.complex64).mH,
    "subclass": marked(),
    "parameter with attributes": noted(),
    "frozen parameter": nn.Parameter(torch.ones(2), requires_grad=False),
    "buffer": nn.Buffer(torch.ones(2)),
    "uint16": torch.tensor([1, 2], dtype=torch.uint16),
    "uint32": torch.tensor([1, 2, 3], dtype=torch.uint32)[1:],
    "float8": torch.ones(3).to(torch.float8_e4m3fn),
    "grown": torch.ones(3).requires_grad_(),
}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("zipped", [True, False])
def test_kinds(tmp_path: Path, protocol: int, zipped: bool) -> None:
    """Lazy conjugates and negatives, subclasses, parameters, dtypes without a storage of their own."""
    path = tmp_path / "x.pt"
    torch.save(KINDS, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    expected = {name: tensor.detach().resolve_conj().resolve_neg() for name, tensor in KINDS.items()}
    expected["subclass"] = expected["subclass"].as_subclass(torch.Tensor)
    assert_same(opened(path), expected)


@pytest.mark.parametrize(("start", "count"), [(0, 3), (2, 5), (7, 1)])
def test_parts_of_lazy_tensors(tmp_path: Path, start: int, count: int) -> None:
    """Any part of a conjugate is that part of the numbers that torch shows."""
    tensor = torch.randn(2, 5, dtype=torch.complex64).mH
    for lazy, dense in ((tensor, tensor.resolve_conj()), (tensor.imag, tensor.imag.resolve_neg())):
        torch.save({"t": lazy}, tmp_path / "x.pt")
        part = read(open_checkpoint(tmp_path / "x.pt"), "t", start, count)
        assert torch.equal(part, dense.reshape(-1)[start : start + count])


def sparse_rows() -> torch.Tensor:
    return torch.sparse_csr_tensor(
        torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1), check_invariants=True
    )


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


UNREADABLE: dict[str, tuple[Callable[[], Any], str, str]] = {
    "sparse": (lambda: torch.ones(3).to_sparse(), "is a sparse tensor", "to_dense"),
    "quantised": (quantised, "is a quantised tensor", "dequantize"),
    "meta": (lambda: torch.empty(2, device="meta"), "is a tensor without data", "load the weights"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "is a nested tensor", "unbind"),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
        "is a nested tensor",
        "unbind",
    ),
    "masked": (lambda: masked_tensor(torch.ones(2), torch.tensor([True, False])), "is a masked tensor", "to_tensor"),
    "lazy": (torch.nn.parameter.UninitializedParameter, "is a tensor without data", "one batch"),
    "lazy buffer": (torch.nn.parameter.UninitializedBuffer, "is a tensor without data", "one batch"),
    "numpy": (lambda: numpy.ones(3), "is a numpy array", "from_numpy"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "has dtype complex128", "save it as one of"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning")
def test_tensors_without_plain_bytes(tmp_path: Path, kind: str) -> None:
    """Each is named, with the call that makes plain numbers of it; in a part that is left out it does no harm."""
    make, what, hint = UNREADABLE[kind]
    tensor = make()
    torch.save({"a": torch.ones(1), "w": tensor}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f"tensor 'w' {what}") as refused:
        open_checkpoint(tmp_path / "x.pt")
    assert hint in str(refused.value.hint)
    torch.save({"model": small_net().state_dict(), "other": {"w": tensor}}, tmp_path / "y.pt")
    assert_same(opened(tmp_path / "y.pt"), small_net().state_dict())
    assert open_checkpoint(tmp_path / "y.pt").origin.notes[0].startswith("left out beside 'model': other")


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_sparse_rows(tmp_path: Path) -> None:
    """Compressed sparse tensors as well."""
    torch.save({"w": sparse_rows()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="is a sparse tensor"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**9),
        torch.zeros(1).expand(30_000, 30_000),
        torch.zeros(40_000).as_strided((30_000, 10_000), (1, 1)),
        torch.zeros(1).expand(1, 10**9),
    ],
    ids=["one", "matrix", "overlapping", "row"],
)
def test_a_view_that_repeats_numbers(tmp_path: Path, tensor: torch.Tensor) -> None:
    """A few numbers that a view repeats a billion times are not written out unasked."""
    torch.save({"a": torch.ones(3), "w": tensor}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"tensor 'w' has shape .* and repeats the elements") as refused:
        open_checkpoint(tmp_path / "x.pt")
    assert ".contiguous()" in str(refused.value.hint)


def test_many_small_views(tmp_path: Path) -> None:
    """So it is for many views that each stay below the limit; a usual number of them is read."""
    one = torch.zeros(1)
    torch.save({str(number): one.expand(10**7) for number in range(20)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="repeats the elements"):
        open_checkpoint(tmp_path / "x.pt")
    torch.save({"position_ids": torch.arange(512).expand(1, 512), "w": one.expand(1000)}, tmp_path / "y.pt")
    assert len(opened(tmp_path / "y.pt")) == 2


def test_views_of_one_storage(tmp_path: Path) -> None:
    """Tensors at several places of one storage each get their own numbers."""
    base = torch.arange(24, dtype=torch.float32)
    state = {"all": base, "end": base[20:], "third": base[::3], "turned": base.view(4, 6).T, "last": base[-1]}
    torch.save(state, tmp_path / "x.pt")
    assert_same(opened(tmp_path / "x.pt"), state)


def test_pickles_are_read_without_torch(tmp_path: Path) -> None:
    """The reader of pickles, tensors, modules, names and the choice of the network import no torch."""
    torch.save({"epoch": 1, "model": small_net()}, tmp_path / "x.pt")
    modules = [f"pickles.{name}" for name in ("unpickler", "tensors", "modules")]
    modules += ["network_part", "names", "training_state", "folders.distributed_metadata"]
    named = [(module, module.rpartition(".")[2]) for module in modules]
    code = (
        "import sys, zipfile\n"
        + "".join(f"import soupcli.checkpoints.formats.{module} as {name}\n" for module, name in named)
        + f"data = zipfile.ZipFile({str(tmp_path / 'x.pt')!r}).read('x/data.pkl')\n"
        "content = unpickler.Unpickler(lambda at, count: data[at : at + count]).load()\n"
        "part = network_part.network_part('x', content, key=None, is_tensor=tensors.is_tensor)\n"
        "print(part.key, len(part.tensors), 'torch' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["model", str(len(small_net().state_dict())), "False"]
