"""Whole modules that were pickled: the tensors that their own state_dict() gives, without their classes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from soupcli.checkpoints.formats.pickles.machine import PickleError
from soupcli.checkpoints.formats.pickles.modules import LONGEST_NAME, state_of
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.checkpoint_tensors import assert_same, opened, small_net
from tests.helpers.temporary_modules import module_of


class Block(nn.Module):
    """Parameters, buffers of both kinds, a shared part, an absent one, and tensors that are none of its state."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.net = small_net(seed)
        self.again = self.net[2]
        self.scale = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_parameter("nothing", None)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("dropped", torch.arange(4), persistent=False)
        self.stride = torch.tensor([8.0, 16.0])
        self.names = {0: "person"}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_module(tmp_path: Path, protocol: int, zipped: bool) -> None:
    """torch.save(model): in both containers and every protocol, its class gone."""
    with module_of("gone.blocks", Block=Block):
        net = Block()
        torch.save(net, tmp_path / "x.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        expected = net.state_dict()
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert checkpoint.origin.key is None
    assert_same(opened(tmp_path / "x.pt"), expected)
    assert "dropped" not in checkpoint.tensors
    assert {"again.weight", "net.2.weight"} <= set(checkpoint.tensors)


def ultralytics(seed: int, **parts: Any) -> dict[str, Any]:
    """The keys that its trainer writes."""
    beside = {"optimizer": None, "train_args": {"lr0": 0.01}, "date": "2025-01-01", "version": "8.3", "license": "AGPL"}
    return {"epoch": -1, "best_fitness": None, "updates": 9, **beside, **parts}


def test_ultralytics(tmp_path: Path) -> None:
    """best.pt: the averaged network under ema, or under model where the trainer moved it there at the end."""
    with module_of("ultralytics.nn.tasks", DetectionModel=Block):
        averaged, trained = Block(0).half(), Block(1).half()
        torch.save(ultralytics(0, ema=averaged, model=trained, optimizer={"x": 1}), tmp_path / "both.pt")
        torch.save(ultralytics(0, ema=averaged, model=None, optimizer={"x": 1}), tmp_path / "last.pt")
        torch.save(ultralytics(0, ema=None, model=averaged), tmp_path / "best.pt")
        states = [copy.deepcopy(net.state_dict()) for net in (averaged, trained)]
    for name, key in {"both": "ema", "last": "ema", "best": "model"}.items():
        origin = open_checkpoint(tmp_path / f"{name}.pt").origin
        assert (origin.format, origin.key, origin.averaged) == ("ultralytics", key, True)
        assert_same(opened(tmp_path / f"{name}.pt"), states[0])
    assert open_checkpoint(tmp_path / "both.pt").origin.notes == (
        "weights are taken from 'ema', which holds averaged ones; the trained ones: --key model",
    )
    assert_same(opened(tmp_path / "both.pt", key="model"), states[1])


def test_wrapped_module(tmp_path: Path) -> None:
    """A module that was saved in its wrapper has the names of the network inside."""
    net = small_net()
    torch.save({"model": nn.DataParallel(net)}, tmp_path / "x.pt")
    assert_same(opened(tmp_path / "x.pt"), net.state_dict())


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
def test_quantised_module(tmp_path: Path) -> None:
    """The packed weights of a quantised module lie outside its parameters: they are refused, not forgotten."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    net[1].packed = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    torch.save(net, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"tensor '1\.packed' is a quantised tensor") as refused:
        open_checkpoint(tmp_path / "x.pt")
    assert "dequantize" in str(refused.value.hint)


@pytest.mark.filterwarnings("ignore:.*quant")
def test_packed_weights(tmp_path: Path) -> None:
    """A dynamically quantised module keeps its weights in an object of TorchScript: it is refused, with the rest."""
    quantised = torch.ao.quantization.quantize_dynamic(small_net(), {nn.Linear})
    torch.save(quantised, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"_packed_params' is an object of TorchScript \(packed weights\)"):
        open_checkpoint(tmp_path / "x.pt")


def stand_in(**modules: StandIn) -> StandIn:
    made = StandIn(None, ())
    made.state = {"_parameters": {}, "_buffers": {}, "_modules": dict(modules)}
    return made


def test_modules_that_hold_each_other() -> None:
    """A module within itself, and one that is shared so often that its names would fill the memory, are refused."""
    ring = stand_in()
    ring.state["_modules"]["a"] = ring
    with pytest.raises(PickleError, match="without end"):
        state_of(ring)
    shared = stand_in()
    for _ in range(20):
        shared = stand_in(a=shared, b=shared, c=shared)
    with pytest.raises(PickleError, match="without end"):
        state_of(shared)
    deep = stand_in()
    for _ in range(LONGEST_NAME):
        deep = stand_in(a=deep)
    with pytest.raises(PickleError, match="without end"):
        state_of(deep)
