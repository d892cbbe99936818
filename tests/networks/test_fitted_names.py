"""Names that differ by a wrapper or by one prefix are those of the network; all others are not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError
from soupcli.networks.fitted_names import fit_names
from soupcli.networks.network import Network
from soupcli.networks.slots import Slots

OWN = [["fc.weight"], ["fc.bias"]]


@pytest.mark.parametrize(
    ("stored", "names", "removed", "added"),
    [
        (["fc.weight", "fc.bias"], ["fc.weight", "fc.bias"], "", ""),
        (["model.fc.weight", "model.fc.bias"], ["fc.weight", "fc.bias"], "model.", ""),
        (["a.net.fc.weight", "a.net.fc.bias"], ["fc.weight", "fc.bias"], "a.net.", ""),
        (["net.module.fc.weight", "net.module.fc.bias"], ["fc.weight", "fc.bias"], "net.", ""),
        (["fc.module.weight", "fc.module.bias"], ["fc.weight", "fc.bias"], "", ""),
        (["m.fc.weight", "m.fc.bias", "loss.weight"], ["fc.weight", "fc.bias", "loss.weight"], "m.", ""),
    ],
)
def test_fitting(stored: list[str], names: list[str], removed: str, added: str) -> None:
    """One prefix comes off, wrappers wherever they stand; what is not under the prefix keeps its name."""
    found = fit_names(stored, OWN)
    assert found is not None
    assert found.names == dict(zip(stored, names, strict=True))
    assert (found.removed, found.added) == (removed, added)


@pytest.mark.parametrize(
    "stored",
    [
        ["teacher.fc.weight", "teacher.fc.bias", "student.fc.weight", "student.fc.bias"],
        ["model.fc.weight", "net.fc.bias"],
        ["model.fc.weight"],
        ["modelfc.weight", "modelfc.bias"],
        ["fc.module.weight", "fc.weight", "fc.bias"],
        [],
    ],
)
def test_not_fitting(stored: list[str]) -> None:
    """Two prefixes that fit, or none that makes every name fit, change nothing."""
    assert fit_names(stored, OWN) is None


def test_a_network_with_wrappers_of_its_own() -> None:
    """Where the recipe builds the wrapped network, plain names are its names."""
    wrapped = [["module._orig_mod.fc.weight"], ["module._orig_mod.fc.bias"]]
    found = fit_names(["fc.weight", "fc.bias"], wrapped)
    assert found is not None and found.note is None
    assert found.names == {"fc.weight": wrapped[0][0], "fc.bias": wrapped[1][0]}


def test_a_network_with_a_prefix() -> None:
    """Where the recipe builds the outer module, the names of the inner one get its name."""
    found = fit_names(["fc.weight", "fc.bias"], [["model.fc.weight"], ["model.fc.bias"]])
    assert found is not None and found.added == "model."
    assert found.names == {"fc.weight": "model.fc.weight", "fc.bias": "model.fc.bias"}


def test_shared_and_optional_tensors() -> None:
    """A shared tensor needs one of its names, a counter none; both get theirs if they are stored."""
    wanted = [["head.weight", "embed.weight"], ["fc.bias"]]
    found = fit_names(["m.embed.weight", "m.fc.bias", "m.bn.count"], wanted, ["bn.count", "other.count"])
    assert found is not None
    assert found.names == {"m.embed.weight": "embed.weight", "m.fc.bias": "fc.bias", "m.bn.count": "bn.count"}


def test_it_is_said_once(tmp_path: Path) -> None:
    """Every checkpoint is fitted by itself; what is done is said once, and a shape that differs is still an error."""
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    said: list[str] = []
    slots = Slots(Network(net), said.append)
    state = {f"model.{name}": tensor.clone() for name, tensor in net.state_dict().items()}
    for number in range(2):
        save_file(state, tmp_path / f"{number}.safetensors")
        places = slots.of(open_checkpoint(tmp_path / f"{number}.safetensors"))
        assert places["model.0.weight"] is net[0].weight
        assert len(places) == len(state)
    assert said == [
        f"{tmp_path}/0.safetensors: its names begin with 'model.', those of the network do not: "
        "it is taken off to evaluate, the soup keeps it"
    ]
    save_file({**state, "model.0.weight": torch.ones(3, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(NetworkError, match=r"tensor 'model\.0\.weight' has shape \[3, 2\]"):
        slots.of(open_checkpoint(tmp_path / "x.safetensors"))
    save_file({**state, "loss.weight": torch.ones(2)}, tmp_path / "y.safetensors")
    assert len(slots.of(open_checkpoint(tmp_path / "y.safetensors"))) == len(state)
    assert said[-1].endswith("the soup keeps it; loss.weight beside it takes no part in the evaluation")
    save_file({**state, "model.2.weight": torch.ones(2)}, tmp_path / "z.safetensors")
    with pytest.raises(NetworkError, match=r"has tensor 'model\.2\.weight', which the network .* has no place for"):
        slots.of(open_checkpoint(tmp_path / "z.safetensors"))


def test_a_network_that_fits_twice(tmp_path: Path) -> None:
    """Student and teacher in one file are both named, and the hint's line gives one that fits."""
    network = Network(nn.Linear(2, 2), None)
    state = {
        f"{part}.{name}": torch.zeros(2, *[2] * (name == "weight"))
        for part in ("student", "teacher")
        for name in ("weight", "bias")
    }
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(NetworkError, match=r"names begin with 'student\.' and 'teacher\.'") as refused:
        Slots(network).of(open_checkpoint(tmp_path))
    line = str(refused.value.hint).partition("torch.save(")[2].rpartition(", other_path")[0]
    assert sorted(eval(line, {"state": state})) == ["bias", "weight"]
