"""Which part of a saved object is taken, and under which names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from soupcli.checkpoints.formats.pickles import WRAPPERS, without_prefixes
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.tensors_of import assert_same, opened, small_net


@pytest.mark.parametrize("first", range(len(WRAPPERS)))
def test_order(tmp_path: Path, first: int) -> None:
    """The averaged weights come before the trained ones, whatever their order in the file."""
    content = {key: small_net(number).state_dict() for number, key in enumerate(WRAPPERS) if number >= first}
    torch.save({"epoch": 1, **dict(reversed(content.items()))}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert checkpoint.origin.key == WRAPPERS[first]
    assert_same(opened(tmp_path / "x.pt"), content[WRAPPERS[first]])


def test_bare(tmp_path: Path) -> None:
    """A state dict that lies there bare has no key, with or without --key."""
    state = small_net().state_dict()
    torch.save(state, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt").origin.key is None
    assert open_checkpoint(tmp_path / "x.pt", How(key="state_dict")).origin.key is None
    assert_same(opened(tmp_path / "x.pt"), state)


def test_key_overrides(tmp_path: Path) -> None:
    """--key takes what it names, with dots where it lies deeper, and keys that hold dots themselves."""
    states = [small_net(number).state_dict() for number in range(3)]
    torch.save({"state_dict": states[0], "nets": {"ema": states[1]}, "v1.0": {"net": states[2]}}, tmp_path / "x.pt")
    assert_same(opened(tmp_path / "x.pt", key="nets.ema"), states[1])
    assert_same(opened(tmp_path / "x.pt", key="v1.0.net"), states[2])
    with pytest.raises(CheckpointError, match=r"has no key 'teacher', only 'state_dict', 'nets', 'v1\.0'"):
        open_checkpoint(tmp_path / "x.pt", How(key="teacher"))
    with pytest.raises(CheckpointError, match="no state dict under 'nets', but parts that may hold one: ema"):
        open_checkpoint(tmp_path / "x.pt", How(key="nets"))


def test_an_empty_average_is_not_taken(tmp_path: Path) -> None:
    """A key that is there without weights, as some trainers leave it, is passed over."""
    torch.save({"state_dict_ema": None, "model_ema": {}, "model": small_net().state_dict()}, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt").origin.key == "model"


def test_no_part_is_dropped_silently(tmp_path: Path) -> None:
    """Weights under an unusual key are named, not skipped for the tensor that lies beside them."""
    torch.save({"step": torch.tensor(3), "net": small_net().state_dict()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="parts that may hold one: net") as refused:
        open_checkpoint(tmp_path / "x.pt")
    assert "--key net" in str(refused.value.hint)
    torch.save({"model": {"encoder": small_net().state_dict(), "scale": torch.ones(1)}}, tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match="no state dict under 'model'") as refused:
        open_checkpoint(tmp_path / "y.pt")
    assert "--key model.encoder" in str(refused.value.hint)


def test_wrappers_of_modules(tmp_path: Path) -> None:
    """DataParallel, torch.compile and both together leave prefixes that come off."""
    net = small_net()
    for number, wrapped in enumerate(
        [
            nn.DataParallel(net),
            torch.compile(net),
            torch.compile(nn.DataParallel(net)),
            nn.DataParallel(nn.DataParallel(net)),
        ]
    ):
        assert isinstance(wrapped, nn.Module)
        torch.save(wrapped.state_dict(), tmp_path / f"{number}.pt")
        assert_same(opened(tmp_path / f"{number}.pt"), net.state_dict())


def test_averaged_model(tmp_path: Path) -> None:
    """torch's AveragedModel: its counter is none of the network's tensors."""
    net = small_net()
    averaged = AveragedModel(net)
    averaged.update_parameters(net)
    torch.save(averaged.state_dict(), tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert_same(opened(tmp_path / "x.pt"), averaged.module.state_dict())
    assert checkpoint.origin.format == "averaged"
    torch.save({"n_averaged": torch.tensor(1), "w": torch.ones(1)}, tmp_path / "y.pt")
    assert sorted(opened(tmp_path / "y.pt")) == ["n_averaged", "w"]


def test_prefix_of_some_names_stays() -> None:
    """A prefix comes off where every name has it, else it belongs to the network."""
    assert without_prefixes(["module.a", "b"]) == {"module.a": "module.a", "b": "b"}
    assert without_prefixes(["module.module.a", "module.module.b"]) == {"module.module.a": "a", "module.module.b": "b"}
    assert without_prefixes([]) == {}
    assert without_prefixes(["module."]) == {"module.": "module."}


def test_fairseq(tmp_path: Path) -> None:
    """fairseq's keys: the weights are under `model`, its configuration needs no class."""
    state = small_net().state_dict()
    content = {"args": None, "cfg": {"task": "x"}, "model": state, "extra_state": {}, "last_optimizer_state": None}
    torch.save(content, tmp_path / "checkpoint_best.pt")
    checkpoint = open_checkpoint(tmp_path / "checkpoint_best.pt")
    assert (checkpoint.origin.format, checkpoint.origin.key) == ("fairseq", "model")
    assert_same(opened(tmp_path / "checkpoint_best.pt"), state)
