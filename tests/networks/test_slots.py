"""Weights fill a network strictly: each name, shape and kind of dtype, or an error that names all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError
from soupcli.networks.network import Network
from soupcli.networks.without_weights import make_without_weights
from tests.helpers.network_toys import assert_same, loaded, randomised, saved


def build() -> nn.Module:
    """Two layers and a batch norm."""
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


State = dict[str, Tensor]
CHANGES: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (
        lambda state: state.pop("2.bias"),
        "has no tensor '2.bias', which the network Sequential needs",
    ),
    "all_missing": (
        lambda state: [state.pop(name) for name in list(state) if name != "0.weight"],
        "has no tensor '0.bias' (and 6 more), which the network Sequential needs",
    ),
    "renamed": (
        lambda state: state.update({"2.biases": state.pop("2.bias")}),
        "has no tensor '2.bias', which the network Sequential needs, its nearest is '2.biases'",
    ),
    "extra": (
        lambda state: state.update({"2.bias_2": torch.zeros(3)}),
        "has tensor '2.bias_2', which the network Sequential has no place for",
    ),
    "shape": (
        lambda state: state.update({"2.weight": torch.zeros(5, 8)}),
        "tensor '2.weight' has shape [5, 8], the network Sequential has [3, 8]",
    ),
    "transposed": (
        lambda state: state.update({"2.weight": torch.zeros(8, 3)}),
        "tensor '2.weight' has shape [8, 3], the network Sequential has [3, 8]",
    ),
    "integers": (
        lambda state: state.update({"2.bias": torch.zeros(3, dtype=torch.int64)}),
        "tensor '2.bias' has dtype torch.int64, the network Sequential has torch.float32",
    ),
    "counter_of_floats": (
        lambda state: state.update({"1.num_batches_tracked": torch.tensor(3.5)}),
        "tensor '1.num_batches_tracked' has dtype torch.float32, the network Sequential has torch.int64",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit(change: str, tmp_path: Path) -> None:
    """The error names the file, the tensor and both values, and a hint says where to look."""
    file = saved(randomised(build()), tmp_path) / "model.safetensors"
    state = load_file(file)
    alter, message = CHANGES[change]
    alter(state)
    save_file(state, file)
    with pytest.raises(NetworkError, match=f"^{re.escape(f'{file}: {message}')}") as raised:
        loaded(Network(make_without_weights(build)), tmp_path)
    assert raised.value.hint is not None


def test_second_ingredient(tmp_path: Path) -> None:
    """Every member of a mixture is checked, and the error names the one that does not fit."""
    saved(randomised(build()), tmp_path / "a")
    file = saved(randomised(build()), tmp_path / "b") / "model.safetensors"
    state = load_file(file)
    state["0.weight"] = torch.zeros(8, 5)
    save_file(state, file)
    with pytest.raises(NetworkError, match=r"b/model\.safetensors: tensor '0\.weight' has shape \[8, 5\]"):
        loaded(Network(make_without_weights(build)), tmp_path / "a", tmp_path / "b")


def test_names_that_the_library_drops(tmp_path: Path) -> None:
    """A tensor that the library drops when it loads is no error, any other one is."""
    module = randomised(build())
    folder = saved(module, tmp_path)
    state = load_file(folder / "model.safetensors")
    save_file({**state, "attn.bias": torch.zeros(2)}, folder / "model.safetensors")
    network = Network(make_without_weights(build), ignored_names=("attn.bias",))
    assert_same(loaded(network, folder).network.module, module)


def test_batch_norm_of_old(tmp_path: Path) -> None:
    """Files from before batch norm counted its batches fill a network, as load_state_dict(strict=True) has it."""
    module = randomised(build())
    folder = saved(module, tmp_path)
    state = load_file(folder / "model.safetensors")
    del state["1.num_batches_tracked"]
    save_file(state, folder / "model.safetensors")
    build().load_state_dict(state, strict=True)
    assert_same(loaded(Network(make_without_weights(build)), folder).network.module, module)


@pytest.mark.parametrize("stored", [("first.weight",), ("second.weight",), ("first.weight", "second.weight")])
def test_tied(stored: tuple[str, ...], tmp_path: Path) -> None:
    """A tied tensor may be stored under any of its names or all; it stays one tensor."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

    matrix = torch.randn(4, 4)
    save_file({name: matrix.clone() for name in stored}, tmp_path / "model.safetensors")
    module = loaded(Network(make_without_weights(Tied)), tmp_path).network.module
    assert module.get_parameter("first.weight") is module.get_parameter("second.weight")
    assert torch.equal(module.get_parameter("first.weight"), matrix)


def test_bfloat16(tmp_path: Path) -> None:
    """Weights stored in bfloat16 fill a float32 network with the numbers that they are."""
    module = randomised(build())
    folder = saved(module, tmp_path, dtype=torch.bfloat16)
    state = loaded(Network(make_without_weights(build)), folder).network.module.state_dict()
    for name, tensor in module.state_dict().items():
        assert torch.equal(state[name], tensor.bfloat16().float() if tensor.is_floating_point() else tensor)


def test_state_of_its_own() -> None:
    """A network whose state dict is made of copies cannot be filled in place, and says so."""

    class Copies(nn.Linear):
        def state_dict(self, *args: Any, **options: Any) -> Any:
            return {name: tensor.clone() for name, tensor in super().state_dict(*args, **options).items()}

    with pytest.raises(NetworkError, match=r"Copies: its state dict has 'weight', a Tensor that is neither"):
        loaded(Network(make_without_weights(lambda: Copies(2, 2))))


def test_torch_files_fit_too(tmp_path: Path) -> None:
    """What torch.save wrote fills a network as safetensors do."""
    module = randomised(build())
    torch.save(module.state_dict(), tmp_path / "model.pt")
    network = Network(make_without_weights(build))
    assert_same(loaded(network, open_checkpoint(tmp_path / "model.pt")).network.module, module)
