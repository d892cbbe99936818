"""What headers say of several checkpoints: every difference, held against what most of them have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.compare.differences import (
    differing_integers,
    differing_ties,
    same_weights,
    shared_names,
    survey,
    tied,
)
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter

EVERYTHING = TensorFilter()
STATE = {"a.weight": torch.arange(12.0).view(3, 4), "a.bias": torch.ones(3), "steps": torch.tensor(5)}


def opened(folder: Path, *states: dict[str, Tensor]) -> list[Checkpoint]:
    """Each state dict as a file."""
    for number, state in enumerate(states):
        save_file(state, folder / f"{number}.safetensors")
    return [open_checkpoint(folder / f"{number}.safetensors") for number in range(len(states))]


def test_the_odd_one_is_told_apart(tmp_path: Path) -> None:
    """A difference is of the checkpoint that has it otherwise than most, wherever it stands in the list."""
    odd = {"a.weight": torch.zeros(5, 4), "a.bias": torch.ones(3).half(), "b.bias": torch.ones(2)}
    checkpoints = opened(tmp_path, odd, STATE, STATE)
    found = survey(checkpoints, EVERYTHING)
    assert {str(each.checkpoint.path.name) for each in found} == {"0.safetensors"}
    assert sorted(map(str, found)) == [
        "has no tensor 'steps'",
        "has tensor 'b.bias', most have not",
        "tensor 'a.bias' has dtype float16, most have float32",
        "tensor 'a.weight' has shape [5, 4], most have [3, 4]",
    ]
    assert shared_names(checkpoints, EVERYTHING) == ["a.bias"]


def test_names_with_something_before_them(tmp_path: Path) -> None:
    """The nearest name is the same one in another wrapper, however many others are written alike."""
    wrapped = {f"backbone.{name}": tensor for name, tensor in STATE.items()} | {"b.weight": torch.ones(3, 4)}
    found = survey(opened(tmp_path, STATE, STATE, wrapped), EVERYTHING)
    lacking = {each.tensor: each.found for each in found if each.kind == "lacks"}
    assert lacking == {name: f"backbone.{name}" for name in STATE}


def test_networks_without_a_name_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many differing names the first are listed and the rest is counted; few are compared by their letters."""
    monkeypatch.setattr("soupcli.checkpoints.compare.differences.MOST_LISTED", 20)
    monkeypatch.setattr("soupcli.checkpoints.compare.differences.MOST_NEAREST", 5)
    states = [{f"{number}.{word}": torch.ones(1) for number in range(50)} for word in ("one", "two")]
    found = survey(opened(tmp_path, *states), EVERYTHING)
    assert [sum(each.tensors for each in found), len(found)] == [200 // 2, 2 * 21]
    assert sum(bool(each.found) for each in found) <= 2 * 5
    assert [str(each) for each in found if each.tensors > 1] == ["has no 30 more tensors"] * 2


def test_selection(tmp_path: Path) -> None:
    """What is not mixed is not compared."""
    checkpoints = opened(tmp_path, STATE, STATE | {"a.weight": torch.zeros(5, 4)})
    assert survey(checkpoints, TensorFilter(exclude=("a.weight",))) == []


def test_equal_weights_in_any_file(tmp_path: Path) -> None:
    """Content decides, not the format; one bit is enough to differ."""
    torch.save(STATE, tmp_path / "same.pt")
    one, other = opened(tmp_path, STATE, STATE | {"a.bias": torch.tensor([1.0, 1.0, -1.0])})
    assert same_weights(one, open_checkpoint(tmp_path / "same.pt"))
    assert not same_weights(one, other)


def test_tied_weights(tmp_path: Path) -> None:
    """One matrix under two names, shared in the file or stored twice; constants are nothing to share."""
    matrix = torch.randn(30, 70)
    torch.save({"embed.weight": matrix, "head.weight": matrix, "x": torch.zeros(4, 4)}, tmp_path / "tied.pt")
    free = {"embed.weight": matrix, "head.weight": matrix + 1, "x": torch.zeros(4, 4), "y": torch.zeros(4, 4)}
    twice, apart = opened(tmp_path, free | {"head.weight": matrix.clone()}, free)
    shared = open_checkpoint(tmp_path / "tied.pt")
    assert tied(shared) == tied(twice) == [("embed.weight", "head.weight")] and tied(apart) == []
    [odd] = differing_ties([shared, apart, twice], {one: str(tied(one)) for one in (shared, apart, twice)})
    assert odd.checkpoint is apart


def test_integers(tmp_path: Path) -> None:
    """Counters that differ are named, equal ones and floating tensors are not."""
    other = STATE | {"steps": torch.tensor(6), "a.bias": torch.zeros(3)}
    assert differing_integers(opened(tmp_path, STATE, other)) == ["steps"]
    assert differing_integers(opened(tmp_path, STATE, STATE)) == []
