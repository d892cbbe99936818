"""Checkpoints of training libraries, written by the libraries: timm, Lightning."""

from __future__ import annotations

import argparse
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from soupcli.checkpoints.find import find
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.checkpoint_tensors import assert_same, opened, small_net
from tests.helpers.temporary_modules import module_of


class Head:
    """A hyper-parameter that is an object of the user's."""

    def __init__(self, width: int) -> None:
        self.width = width


@pytest.fixture
def timm_run(tmp_path: Path) -> tuple[Path, list[dict[str, torch.Tensor]], nn.Module]:
    """A folder of timm's CheckpointSaver after three epochs, the states that it saved, and the averaged network."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    net = small_net()
    averaged = timm.utils.ModelEmaV3(net)
    args = argparse.Namespace(model="resnet18", lr=0.1, data_dir="data")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    saver = timm.utils.CheckpointSaver(
        net, optimizer, args=args, model_ema=averaged, checkpoint_dir=str(tmp_path), max_history=3
    )
    states = []
    for epoch, metric in enumerate([70.0, 72.5, 71.0]):
        for parameter in net.parameters():
            parameter.data.add_(0.1 * (epoch + 1))
        averaged.update(net)
        saver.save_checkpoint(epoch, metric)
        states.append({name: tensor.clone() for name, tensor in averaged.module.state_dict().items()})
    return tmp_path, states, net


def test_timm(timm_run: Any) -> None:
    """Each file opens by its averaged weights, with timm's metric; --key takes the trained ones."""
    folder, states, net = timm_run
    for epoch, metric in enumerate([70.0, 72.5, 71.0]):
        path = folder / f"checkpoint-{epoch}.pth.tar"
        origin = open_checkpoint(path).origin
        assert (origin.format, origin.key, dict(origin.metrics)) == (
            "timm training",
            "state_dict_ema",
            {"metric": metric},
        )
        assert_same(opened(path), states[epoch])
    assert_same(opened(folder / "checkpoint-2.pth.tar", key="state_dict"), net.state_dict())


def test_timm_links_count_once(timm_run: Any) -> None:
    """last and model_best are names of numbered checkpoints: three ingredients, with a line for each."""
    folder, _, _ = timm_run
    found = find([str(folder / "*.pth.tar")])
    assert [checkpoint.path.name for checkpoint in found.checkpoints] == [
        f"checkpoint-{epoch}.pth.tar" for epoch in range(3)
    ]
    assert [note.partition(": counted")[0].replace(f"{folder}/", "") for note in found.notes] == [
        "last.pth.tar is the same file as checkpoint-2.pth.tar",
        "model_best.pth.tar is the same file as checkpoint-1.pth.tar",
        "checkpoint-0.pth.tar and 2 more: weights are taken from 'state_dict_ema', which holds averaged ones; "
        "the trained ones: --key state_dict",
    ]


def test_timm_copies_count_once(timm_run: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """So they do where the file system has no links, and timm copies."""
    folder, _, _ = timm_run
    copied = tmp_path_factory.mktemp("copied")
    for path in sorted(folder.iterdir()):
        shutil.copyfile(path, copied / path.name)
    found = find([str(copied / "*.pth.tar")])
    assert len(found.checkpoints) == 3
    assert f"{copied}/last.pth.tar holds the same weights as {copied}/checkpoint-2.pth.tar: counted once" in found.notes


def test_timm_folder(timm_run: Any) -> None:
    """A folder of several epochs does not say which is meant."""
    with pytest.raises(CheckpointError, match="holds 5 checkpoints") as refused:
        open_checkpoint(timm_run[0])
    assert "--weights-name model_best.pth.tar" in str(refused.value.hint)
    assert "/checkpoint-*.pth.tar'" in str(refused.value.hint)  # and not the names of one of them
    assert_same(opened(timm_run[0], weights_name="model_best.pth.tar"), timm_run[1][1])


@pytest.fixture(scope="module")
def lightning_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """Two .ckpt files of a real Lightning run, with hyper-parameters that are plain and that are not."""
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

    class Task(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, rate: float, head: Head | None = None) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = small_net()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss: torch.Tensor = self.net(batch[0]).square().mean()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)

    folder = tmp_path_factory.mktemp("lightning")
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 4)), batch_size=4)
    for name, task in {"plain": Task(0.1), "object": Task(0.1, Head(3))}.items():
        with warnings.catch_warnings():  # Lightning's own, of torch's, and its advice on workers and Slurm
            warnings.simplefilter("ignore")
            trainer = lightning.Trainer(
                max_epochs=1,
                accelerator="cpu",
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
                default_root_dir=folder,
            )
            trainer.fit(task, data)
        trainer.save_checkpoint(folder / f"{name}.ckpt")
    return folder, task.state_dict()


def test_lightning(lightning_run: Any) -> None:
    """A .ckpt with plain hyper-parameters opens as it is."""
    folder, _ = lightning_run
    checkpoint = open_checkpoint(folder / "plain.ckpt")
    assert checkpoint.origin[:2] == ("Lightning", "state_dict")
    assert sorted(checkpoint.tensors) == sorted(f"net.{name}" for name in small_net().state_dict())


def test_lightning_hyper_parameters(lightning_run: Any) -> None:
    """A .ckpt with an object among them opens too: its class is not looked at."""
    folder, state = lightning_run
    assert_same(opened(folder / "object.ckpt"), state)
    assert open_checkpoint(folder / "object.ckpt").origin.notes == ()


def test_lightning_weight_averaging(tmp_path: Path) -> None:
    """WeightAveraging writes the averaged weights under state_dict: they count as such, and --key takes the others."""
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

    class Task(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss: torch.Tensor = self.net(batch[0]).square().mean()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    task, callback = Task(), lightning.callbacks.WeightAveraging()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(16, 4)), batch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[callback],
            default_root_dir=tmp_path,
        )
        trainer.fit(task, data)
    [path] = tmp_path.rglob("*.ckpt")
    content = torch.load(path, weights_only=False)
    origin = open_checkpoint(path).origin
    assert (origin.format, origin.key, origin.averaged) == ("Lightning", "state_dict", True)
    assert_same(opened(path), content["state_dict"])
    assert_same(opened(path, key="current_model_state"), content["current_model_state"])
    assert "--key current_model_state" in origin.notes[0]


class History:
    """A class of a library that is not installed where its file is read."""

    def __init__(self) -> None:
        self.values = numpy.zeros(5)


def layouts(other: Any) -> dict[str, tuple[dict[str, Any], str, bool]]:
    """Keys as each library's own writer has them, with objects of a class that is gone; key and whether it averages."""
    net = small_net()
    state, optimizer = net.state_dict(), torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9).state_dict()
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    return {
        "nnU-Net": (
            {
                "network_weights": state,
                "optimizer_state": optimizer,
                "grad_scaler_state": None,
                "logging": {"mean_fg_dice": [numpy.float64(0.5)], "lrs": [0.01]},
                "_best_ema": numpy.float32(0.7),
                "current_epoch": 3,
                "init_args": {"plans": {}, "device": torch.device("cpu")},
                "trainer_name": "nnUNetTrainer",
                "inference_allowed_mirroring_axes": (0, 1),
            },
            "network_weights",
            False,
        ),
        "mmengine": (
            {
                "meta": {"epoch": 1, "cfg": "model = dict()", "dataset_meta": other, "mmengine_version": "0.10.5"},
                "state_dict": state,
                "message_hub": {"log_scalars": {"train/loss": other}, "runtime_info": {"epoch": 1}},
                "optimizer": optimizer,
                "param_schedulers": [{"last_step": 3}],
            },
            "state_dict",
            False,
        ),
        "icefall": (
            {
                "model": wrapped,
                "model_avg": {name: tensor.double() for name, tensor in state.items()},
                "optimizer": optimizer,
                "scheduler": {"epoch": 1},
                "grad_scaler": {"scale": 2.0},
                "sampler": {"epoch": 1},
                "exp_dir": Path("exp"),
                "params": other,
            },
            "model_avg",
            True,
        ),
        "detectron2": (
            {"model": state, "optimizer": optimizer, "scheduler": {"last_epoch": 3}, "iteration": 9},
            "model",
            False,
        ),
        "BasicSR": ({"params": state, "params_ema": state}, "params_ema", True),
        "fairseq": (
            {"cfg": other, "args": None, "model": state, "criterion": None, "extra_state": {"meters": other}},
            "model",
            False,
        ),
        "YOLOv5": (
            {"epoch": 1, "best_fitness": 0.5, "model": net, "ema": net, "updates": 5, "opt": {"lr": 1}, "git": other},
            "ema",
            True,
        ),
    }


@pytest.mark.parametrize("format_", ["nnU-Net", "mmengine", "icefall", "detectron2", "BasicSR", "fairseq", "YOLOv5"])
def test_keys_of_libraries(tmp_path: Path, format_: str) -> None:
    """Files with the keys of each library's writer open without a flag, by the part that the library would load."""
    with module_of("gone.logging", History=History):
        content, key, averaged = layouts(History())[format_]
        torch.save(content, tmp_path / "x.pth")
    origin = open_checkpoint(tmp_path / "x.pth").origin
    assert (origin.format, origin.key, origin.averaged) == (format_, key, averaged)
    state = small_net().state_dict()
    expected = {name: tensor.double() for name, tensor in state.items()} if format_ == "icefall" else state
    assert_same(opened(tmp_path / "x.pth"), expected)
    assert not [note for note in origin.notes if note.startswith("left out")]
