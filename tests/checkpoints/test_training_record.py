"""Steps, epochs and metrics that trainers write into names and files."""

from __future__ import annotations

import argparse
import datetime
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from soupcli.checkpoints.formats.folders import trainer_state
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.training_record import TrainingRecord, order_by, record_of, value_of
from soupcli.errors import UsageError
from soupcli.files.json_text import parse_json

if TYPE_CHECKING:
    from pathlib import Path


NEMO = {"val_loss": 3.25, "consumed_samples": 640000.0}


def about(path: Path) -> TrainingRecord:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({"w": torch.ones(1)}, path)
    else:
        torch.save({"w": torch.ones(1)}, path)
    return record_of(open_checkpoint(path))


@pytest.mark.parametrize(
    ("name", "step", "epoch", "metrics"),
    [
        ("epoch=3-step=500.ckpt", 500, 3, {}),
        ("epoch=12-val_loss=0.12.ckpt", None, 12, {"val_loss": 0.12}),
        ("model--val_wer=0.1033-epoch=9-last.ckpt", None, 9, {"val_wer": 0.1033}),
        ("val_loss=1e-3-epoch=7.ckpt", None, 7, {"val_loss": 0.001}),
        ("checkpoint-1000.pt", 1000, None, {}),
        ("step_2000.safetensors", 2000, None, {}),
        ("iter_0000150.pt", 150, None, {}),
        ("epoch_12.pt", None, 12, {}),
        ("12epoch.pth", None, 12, {}),  # ESPnet
        ("checkpoint_3_5000.pt", 5000, 3, {}),  # fairseq, within an epoch
        ("checkpoint.best_bleu_31.20.pt", None, None, {"bleu": 31.2}),
        ("checkpoint.best_loss_3.4127.pt", None, None, {"loss": 3.412}),  # the last digit is drawn, to tell ties apart
        ("megatron_gpt--val_loss=3.25-step=2500-consumed_samples=640000.0-last.ckpt", 2500, None, NEMO),
        ("model.pt", None, None, {}),
        ("lr1e-5_seed0.pt", None, None, {}),  # a setting is no step
        ("resnet50.pt", None, None, {}),
    ],
)
def test_names(tmp_path: Path, name: str, step: int | None, epoch: int | None, metrics: dict[str, float]) -> None:
    """Lightning's and NeMo's pairs, steps and epochs by name; a number of something else is nothing."""
    assert about(tmp_path / name) == (step, epoch, metrics)


def test_trainer_state(tmp_path: Path) -> None:
    """transformers' own file goes over the folder's name."""
    folder = tmp_path / "checkpoint-7"
    log = [{"step": 5, "eval_loss": 3.0}, {"step": 10, "eval_loss": 2.0, "eval_runtime": 9.0}]
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 10, "epoch": 2.5, "log_history": log}))
    save_file({"w": torch.ones(1)}, folder / "model.safetensors")
    assert record_of(open_checkpoint(folder)) == (10, 2, {"eval_loss": 2.0})


def test_a_long_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a long run is parsed once, and of its many steps only evaluations are kept."""
    log: list[dict[str, float]] = [{"step": step, "loss": 1.0} for step in range(1_000)]
    log += [{"step": 999, "eval_loss": 2.0}, {"step": 999, "train_runtime": 5.0}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 999, "epoch": 1.0, "log_history": log}))
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    parsed: list[Any] = []

    def counted(content: bytes, **how: Any) -> Any:
        parsed.append(parse_json(content, **how))
        return parsed[-1]

    monkeypatch.setattr(trainer_state, "parse_json", counted)
    assert record_of(open_checkpoint(tmp_path)) == (999, 1, {"eval_loss": 2.0})
    assert [len(list(filter(None, one["log_history"]))) for one in parsed] == [1]


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"global_step": "x", "epoch": [1]}', "\x00"])
def test_broken_trainer_state(tmp_path: Path, text: str) -> None:
    """A file that says nothing readable leaves what the name says."""
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(text)
    save_file({"w": torch.ones(1)}, folder / "model.safetensors")
    assert record_of(open_checkpoint(folder)) == (7, None, {})


def test_why_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who chooses by a metric of a file that is too large is told so, and of one that is no JSON."""
    nothing = TrainingRecord(None, None, {})
    for text, why in (
        ("", "nothing is recorded there: soup rank"),
        ("{", "trainer_state.json: Expecting"),
        ("{}" * 9, "trainer_state.json: has more than 16 bytes: soup rank"),
    ):
        monkeypatch.setattr(trainer_state, "MAX_BYTES", 16)
        if text:
            (tmp_path / "trainer_state.json").write_text(text)
        with pytest.raises(UsageError) as refused:
            value_of("loss", nothing, tmp_path)
        assert why in (refused.value.hint or "")


def test_odd_numbers_of_wenet(tmp_path: Path) -> None:
    """Keys that are no words, and those of thousands of digits, are passed over."""
    (tmp_path / "epoch_1.yaml").write_text(f"? 0x{'f' * 6_000}\n: 1\nloss_dict: {{3: 2, cv_loss: 4.5}}\n")
    assert about(tmp_path / "epoch_1.pt") == (None, 1, {"cv_loss": 4.5})


def test_wenet(tmp_path: Path) -> None:
    """wenet writes a YAML file beside each checkpoint."""
    (tmp_path / "epoch_3.yaml").write_text(yaml.safe_dump({"epoch": 3, "step": 900, "loss_dict": {"cv_loss": 4.5}}))
    assert about(tmp_path / "epoch_3.pt") == (900, 3, {"cv_loss": 4.5})


def test_espnet(tmp_path: Path) -> None:
    """ESPnet keeps every epoch's numbers, numpy's among them, in checkpoint.pth beside the epochs' weights."""
    stats = {
        epoch: {
            "train": {"loss": np.float64(9.5 / epoch), "time": datetime.timedelta(seconds=3), "total_count": 7},
            "valid": {"loss": np.float32(4.5), "acc": 0.25 * epoch, "iter_time": None},
        }
        for epoch in (1, 2)
    }
    reporter = {"stats": stats, "epoch": 2}
    torch.save({"model": {"w": torch.ones(1)}, "reporter": reporter, "optimizers": []}, tmp_path / "checkpoint.pth")
    expected = {"train.loss": 4.75, "valid.loss": 4.5, "valid.acc": 0.5, "train.total_count": 7.0}
    assert about(tmp_path / "2epoch.pth") == (None, 2, expected)
    assert about(tmp_path / "3epoch.pth") == (None, 3, {})


def test_broken_espnet(tmp_path: Path) -> None:
    """A checkpoint.pth that is no such file leaves what the name says."""
    (tmp_path / "checkpoint.pth").write_bytes(b"\x80\x02nonsense")
    assert about(tmp_path / "2epoch.pth") == (None, 2, {})
    torch.save({"reporter": {"stats": [1, 2]}}, tmp_path / "checkpoint.pth")
    assert about(tmp_path / "2epoch.pth") == (None, 2, {})


def saved(path: Path, **content: object) -> TrainingRecord:
    torch.save({**({} if "state_dict" in content else {"model": {"w": torch.ones(1)}}), **content}, path)
    return record_of(open_checkpoint(path))


def test_fairseq(tmp_path: Path) -> None:
    """fairseq's number is of the metric that its own settings name, whatever it is called in the file."""
    content: dict[str, object] = {
        "args": None,
        "extra_state": {"train_iterator": {"epoch": 4}, "val_loss": 31.5, "best": 33.0},
        "optimizer_history": [{"num_updates": 9000, "optimizer_name": "FairseqAdam"}],
    }
    bleu = {"checkpoint": {"best_checkpoint_metric": "bleu", "maximize_best_checkpoint_metric": True}}
    assert saved(tmp_path / "checkpoint3.pt", cfg=bleu, **content) == (9000, 4, {"bleu": 31.5})
    loss = {"checkpoint": {"best_checkpoint_metric": "loss"}}
    assert saved(tmp_path / "checkpoint4.pt", cfg=loss, **content) == (9000, 4, {"val_loss": 31.5, "loss": 31.5})
    content["args"] = argparse.Namespace(best_checkpoint_metric="ppl")  # before its settings were a tree
    assert saved(tmp_path / "checkpoint5.pt", **content) == (9000, 4, {"ppl": 31.5})


def test_timm_and_lightning(tmp_path: Path) -> None:
    """timm's metric and epoch; Lightning's watched score, a tensor, with its step and epoch."""
    assert saved(tmp_path / "checkpoint-9.pth.tar", epoch=9, metric=81.5, arch="vit")[1:] == (9, {"metric": 81.5})
    watched = {"monitor": "val_acc", "current_score": torch.tensor(0.75), "best_model_score": torch.tensor(0.9)}
    found = saved(
        tmp_path / "last.ckpt",
        **{"epoch": 3, "global_step": 500, "pytorch-lightning_version": "2.5", "state_dict": {"w": torch.ones(1)}},
        callbacks={"ModelCheckpoint{'monitor': 'val_acc'}": watched, "EarlyStopping": {"best_score": 1.0}},
    )
    assert found == (500, 3, {"val_acc": 0.75})


@pytest.mark.parametrize(
    ("word", "metric", "higher"), [("eval_loss", "eval_loss", False), ("-metric", "metric", False), ("+x", "x", True)]
)
def test_order_by(word: str, metric: str, higher: bool) -> None:
    """The name tells the direction, a sign goes over it."""
    assert order_by(word) == (metric, higher)


def test_unknown_direction() -> None:
    """Where nobody knows, the error gives both spellings."""
    with pytest.raises(UsageError, match="whether more or less") as refused:
        order_by("best_metric")
    assert refused.value.hint == "--by=-best_metric if lower is better, --by=+best_metric if higher is"


def test_numbers_of_an_own_loop(tmp_path: Path) -> None:
    """Plain numbers beside the weights, or in `metrics`, by names of metrics; the best of a run so far is not its."""
    state = {"w": torch.ones(1), "loss.weight": torch.ones(1)}
    entries = {
        "model": state,
        "epoch": 3,
        "val_acc": np.float64(0.5),
        "best_acc1": 0.9,
        "lr": 0.1,
        "loss": torch.ones(1),
    }
    torch.save({**entries, "metrics": {"f1": 0.25, "name": "x"}}, tmp_path / "own.pth")
    assert record_of(open_checkpoint(tmp_path / "own.pth")).metrics == {"val_acc": 0.5, "f1": 0.25}
    torch.save(state, tmp_path / "bare.pth")
    assert record_of(open_checkpoint(tmp_path / "bare.pth")).metrics == {}
