"""Copies of training checkpoints: the state of the training is left out and said, wherever a library puts it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.torch_copy import CopyOptions, TorchNotes
from soupcli.mixing.torch_file import write_copy
from tests.helpers.checkpoint_tensors import assert_same, small_net
from tests.helpers.means import mean64


@cache
def of_adam(seed: int) -> dict[str, Any]:
    """The state of an optimizer that has made a step."""
    net = small_net(seed)
    optimizer = torch.optim.AdamW(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def composer(state: dict[str, Any], adam: dict[str, Any]) -> dict[str, Any]:
    inner = {"model": state, "optimizers": {"AdamW": adam}, "schedulers": {"StepLR": {"last_epoch": 1}}}
    return {"state": {**inner, "run_name": "a"}, "rng": [{"python": (3, (1, 2), None), "torch": torch.arange(3)}]}


def lightning(state: dict[str, Any], adam: dict[str, Any]) -> dict[str, Any]:
    training = {"optimizer_states": [adam], "lr_schedulers": [{"last_epoch": 1}], "loops": {"fit_loop": {}}}
    return {"global_step": 3, "pytorch-lightning_version": "2.6", "state_dict": state, **training}


def catalyst(state: dict[str, Any], adam: dict[str, Any]) -> dict[str, Any]:
    return {"model_state_dict": state, "optimizer_state_dict": adam, "epoch_metrics": {"loss": 1.0}}


def deepspeed(state: dict[str, Any], adam: dict[str, Any]) -> dict[str, Any]:
    return {"module": state, "optimizer": adam, "lr_scheduler": {"last_epoch": 1}, "ds_version": "0.19"}


def mmengine(state: dict[str, Any], adam: dict[str, Any]) -> dict[str, Any]:
    training = {"message_hub": {}, "optimizer": adam, "param_schedulers": [{"last_step": 1}]}
    return {"meta": {"epoch": 3}, "state_dict": state, **training}


def ignite(state: dict[str, Any], adam: dict[str, Any]) -> dict[str, Any]:
    return {"model": state, "optimizer": adam, "trainer": {"iteration": 3}}


def beside(state: dict[str, Any], adam: dict[str, Any]) -> dict[str, Any]:
    training = {"optimizer": adam, "scheduler": {"last_epoch": 1}, "epoch": 3}
    return {"net": state, "training": training, "config": {"optimizer": {"name": "adam"}, "scheduler": {"name": "cos"}}}


def deep(state: dict[str, Any], adam: dict[str, Any]) -> dict[str, Any]:
    return {"run": {"part": {"model": {"net": state, "scheduler": {"last_epoch": 1}}, "sgd": adam}, "name": "a"}}


LAYOUTS = {
    composer: ("rng", "state.optimizers", "state.schedulers"),
    lightning: ("loops", "lr_schedulers", "optimizer_states"),
    catalyst: ("optimizer_state_dict",),
    deepspeed: ("lr_scheduler", "optimizer"),
    mmengine: ("message_hub", "optimizer", "param_schedulers"),
    ignite: ("optimizer",),
    beside: ("training",),
    deep: ("run.part.model.scheduler", "run.part.sgd"),
}


def at(content: Any, name: str) -> Any:
    """The part under a name with dots, or None."""
    for step in name.split("."):
        content = content.get(step)
    return content


def names_in(content: Any) -> Any:
    """The names in nested dicts, in order."""
    return [(name, names_in(value)) for name, value in content.items()] if isinstance(content, dict) else None


def copied(
    path: Path, content: Any, *, legacy: bool = False, keep_state: bool = False, key: str | None = None
) -> tuple[Any, TorchNotes]:
    """The soup of `content` and another one, as torch reads it, and what is said about it."""
    for seed, file in enumerate((path / "0.pt", path / "1.pt")):
        torch.save(
            content(small_net(seed).state_dict(), of_adam(seed)), file, _use_new_zipfile_serialization=not legacy
        )
    mixture = Mixture.uniform([open_checkpoint(path / name, How(key=key)) for name in ("0.pt", "1.pt")])
    options = CopyOptions(keep_state=keep_state)
    written = write_copy(mixture, mixture.kept.own.files[0], path / "soup.pt", options)
    return torch.load(path / "soup.pt", weights_only=False), written.notes


@pytest.mark.parametrize(("layout", "training"), LAYOUTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_training_state(tmp_path: Path, layout: Any, training: tuple[str, ...]) -> None:
    """It is left out on every level that holds the network, all else stays, and `keep_state` keeps it."""
    found, notes = copied(tmp_path, layout)
    assert notes == TorchNotes(dropped=notes.dropped) and sorted(notes.dropped) == list(training)
    assert [at(found, name) for name in training] == [None] * len(training)
    key = open_checkpoint(tmp_path / "0.pt").origin.key or ""
    assert_same(at(found, key), mean64([small_net(seed).state_dict() for seed in range(2)]))
    rest = torch.load(tmp_path / "0.pt", weights_only=False)
    for name in training:
        above, _, last = name.rpartition(".")
        del (at(rest, above) if above else rest)[last]
    assert names_in(found) == names_in(rest)
    kept, notes = copied(tmp_path, layout, keep_state=True)
    assert not notes.dropped and set(notes.as_in_ingredient) <= set(training)
    assert all(at(kept, name) is not None for name in training)


def test_old_files(tmp_path: Path) -> None:
    """Files of torch before 1.6 are copied whole: what stays in them as it was is said."""
    found, notes = copied(tmp_path, composer, legacy=True)
    assert at(found, "state.optimizers") is not None
    assert notes == TorchNotes(as_in_ingredient=("rng", "state.optimizers", "state.schedulers"))


def test_all_parts_as_one(tmp_path: Path) -> None:
    """Each part is averaged in its place; training state beside them goes, in one of them it stays: both are said."""

    def gan(state: dict[str, Any], adam: dict[str, Any]) -> dict[str, Any]:
        return {"gen": state, "disc": {"net": state, "opt": adam}, "optimizer": adam, "queue": [torch.ones(2)]}

    found, notes = copied(tmp_path, gan, key="*")
    assert notes == TorchNotes(("optimizer",), ("disc.opt", "queue"))
    expected = mean64([small_net(seed).state_dict() for seed in range(2)])
    assert_same(found["gen"], expected)
    assert_same(found["disc"]["net"], expected)
