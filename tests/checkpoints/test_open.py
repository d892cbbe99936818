"""Folders and files as model libraries leave them: what is opened, and the line that refuses the rest."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save

from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.checkpoint_tensors import assert_same, opened, small_net

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny model of transformers, with tied weights."""
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=8, bos_token_id=1, eos_token_id=2
    )
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(config)


def test_transformers_single(tmp_path: Path, model: Any) -> None:
    """A folder of save_pretrained: weights and side files; the file alone carries the same side files."""
    model.save_pretrained(tmp_path / "a")
    checkpoint = open_checkpoint(tmp_path / "a")
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    assert_same(opened(tmp_path / "a"), state)
    assert [path.name for path in checkpoint.side_files] == ["config.json", "generation_config.json"]
    assert checkpoint.origin.format == "safetensors"
    assert checkpoint.folder == tmp_path / "a"
    file = open_checkpoint(tmp_path / "a/model.safetensors")
    assert file.side_files == checkpoint.side_files
    assert file.folder == tmp_path / "a"


def test_timm_hub(tmp_path: Path) -> None:
    """A folder of timm's save_for_hf."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=24, num_classes=3)
    timm.models.save_for_hf(net, tmp_path / "a", safe_serialization=True)
    assert_same(opened(tmp_path / "a"), net.state_dict())
    assert "config.json" in [path.name for path in open_checkpoint(tmp_path / "a").side_files]


def test_open_clip_hub(tmp_path: Path) -> None:
    """A folder of open_clip's save_for_hf: open_clip_model.safetensors before the .bin that lies beside it."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    from open_clip.push_to_hf_hub import save_for_hf  # noqa: PLC0415

    config = {
        "embed_dim": 8,
        "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 16},
        "text_cfg": {"layers": 1, "width": 32, "heads": 2, "context_length": 8, "vocab_size": 50},
    }
    net = open_clip.model.CLIP(**config)
    open_clip.model.set_model_preprocess_cfg(net, {"mean": (0.5,) * 3, "std": (0.5,) * 3})
    save_for_hf(net, tokenizer=_NoTokenizer(), model_config=config, save_directory=str(tmp_path / "a"))
    checkpoint = open_checkpoint(tmp_path / "a")
    assert checkpoint.files[0].path.name == "open_clip_model.safetensors"
    assert "open_clip_config.json" in [path.name for path in checkpoint.side_files]
    assert_same(opened(tmp_path / "a"), net.state_dict())


class _NoTokenizer:
    def save_pretrained(self, folder: str) -> None:
        """Saves nothing."""


def test_open_clip_training(tmp_path: Path) -> None:
    """epoch_N.pt as open_clip's training script writes it: state_dict, with the prefix of DistributedDataParallel."""
    net = small_net()
    optimizer = torch.optim.AdamW(net.parameters())
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    content = {"epoch": 3, "name": "run", "state_dict": state, "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "epoch_3.pt")
    checkpoint = open_checkpoint(tmp_path / "epoch_3.pt")
    assert checkpoint.origin[:2] == ("open_clip training", "state_dict")
    assert_same(opened(tmp_path / "epoch_3.pt"), net.state_dict())


def test_accelerate(tmp_path: Path) -> None:
    """Accelerate's save_state: the model beside optimizer and random states, which are not opened."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    net = small_net()
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, _ = accelerator.prepare(net, torch.optim.AdamW(net.parameters()))
    accelerator.save_state(str(tmp_path / "a"))
    assert_same(opened(tmp_path / "a"), accelerator.unwrap_model(prepared).state_dict())
    (tmp_path / "a/model.safetensors").rename(tmp_path / "a/weights")
    assert_same(opened(tmp_path / "a"), net.state_dict())


def test_recognised_by_content(tmp_path: Path) -> None:
    """Names say nothing: a zip archive named .safetensors, safetensors named .pt, weights without an ending."""
    state = small_net().state_dict()
    torch.save(state, tmp_path / "x.safetensors")
    save_file(state, tmp_path / "x.pt")
    (tmp_path / "run").mkdir()
    save_file(state, tmp_path / "run/weights")
    (tmp_path / "run/log.txt").write_text("loss")
    (tmp_path / "run/data.npz").write_bytes(b"PK\x03\x04 no archive of torch's")
    for path in (tmp_path / "x.safetensors", tmp_path / "x.pt", tmp_path / "run/weights"):
        assert_same(opened(path), state)
    (tmp_path / "run/data.npz").unlink()
    numpy.savez(tmp_path / "run/data.npz", inputs=numpy.zeros(3))
    assert_same(opened(tmp_path / "run"), state)


def test_several_in_one_folder(tmp_path: Path) -> None:
    """Several candidates are listed, with the flag that picks one; a trainer's best is offered first."""
    for number, name in enumerate(["checkpoint-1.pth.tar", "checkpoint-2.pth.tar", "model_best.pth.tar"]):
        torch.save({"state_dict": small_net(number).state_dict()}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"holds 3 checkpoints: checkpoint-1\.pth\.tar, c") as refused:
        open_checkpoint(tmp_path)
    assert "--weights-name model_best.pth.tar" in str(refused.value.hint)
    assert_same(opened(tmp_path, weights_name="checkpoint-2.pth.tar"), small_net(1).state_dict())
    with pytest.raises(CheckpointError, match="has no file other"):
        open_checkpoint(tmp_path, How(weights_name="other"))


def test_names_of_one_file_count_once(tmp_path: Path) -> None:
    """A folder with hard links to, and copies of, one checkpoint holds one."""
    torch.save({"state_dict": small_net().state_dict()}, tmp_path / "checkpoint-1.pth.tar")
    os.link(tmp_path / "checkpoint-1.pth.tar", tmp_path / "last.pth.tar")
    shutil.copy(tmp_path / "checkpoint-1.pth.tar", tmp_path / "model_best.pth.tar")
    assert_same(opened(tmp_path), small_net().state_dict())


def test_trainer_state_is_never_opened(tmp_path: Path) -> None:
    """Optimizer state and arguments are not even looked into: here they cannot be read."""
    save_file(small_net().state_dict(), tmp_path / "a.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state_0.pth", "optimizer_1.bin"):
        (tmp_path / name).symlink_to(tmp_path / "a.safetensors")
    assert_same(opened(tmp_path), small_net().state_dict())


ZERO_PARTS = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt")


@pytest.mark.parametrize(
    ("names", "converter"),
    [
        (
            ["latest", "zero_to_fp32.py", *(f"global_step5/{name}" for name in ZERO_PARTS)],
            "zero_to_fp32.py {0} {0}/converted",
        ),
        (["layer_00-model_00-model_states.pt", ZERO_PARTS[0]], "deepspeed.utils.zero_to_fp32"),
        (["latest", "global_step5/x"], "deepspeed.utils.zero_to_fp32"),
        (["zero_pp_rank_0_mp_rank_00_model_states.pt"], "deepspeed.utils.zero_to_fp32"),
        (["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"], "deepspeed.utils.zero_to_fp32"),
        (["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"], "python -m verl.model_merger merge"),
    ],
)
def test_foreign_layouts(tmp_path: Path, names: list[str], converter: str) -> None:
    """DeepSpeed's and verl's parts are refused, folder and file, with the command that puts them together."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("global_step5" if name == "latest" else "")
    for path in [tmp_path, *(tmp_path / name for name in names if name.endswith(".pt"))]:
        with pytest.raises(CheckpointError, match=r"a DeepSpeed|of verl") as refused:
            open_checkpoint(path)
        assert converter.format(tmp_path) in str(refused.value.hint)


def test_deepspeed_with_whole_weights(tmp_path: Path) -> None:
    """A checkpoint that DeepSpeed also wrote whole weights into is opened by those."""
    (tmp_path / "global_step5").mkdir()
    (tmp_path / "latest").write_text("global_step5")
    (tmp_path / "zero_to_fp32.py").write_text("")
    save_file(small_net().state_dict(), tmp_path / "model.safetensors")
    assert_same(opened(tmp_path), small_net().state_dict())


def test_deepspeed_by_content(tmp_path: Path) -> None:
    """A part of DeepSpeed's under another name is known by its keys; one without ZeRO's third stage is whole."""
    said = {"module": small_net().state_dict(), "ds_version": "0.16"}
    for more in ({"ds_config": {"zero_optimization": {"stage": 3}}}, {"mp_world_size": 2}):
        torch.save(said | more, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match="DeepSpeed"):
            open_checkpoint(tmp_path / "x.pt")
    torch.save(said | {"ds_config": {"zero_optimization": {"stage": 0}}, "mp_world_size": 1}, tmp_path / "x.pt")
    assert_same(opened(tmp_path / "x.pt"), small_net().state_dict())


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_parts_in_safetensors(tmp_path: Path) -> None:
    """Parts of tensors that torch's distributed checkpoint writes as safetensors are not taken for whole ones."""
    save(small_net().state_dict(), storage_writer=HuggingFaceStorageWriter(str(tmp_path), save_distributed=True))
    with pytest.raises(CheckpointError, match="a part that torch's distributed checkpoint wrote") as refused:
        open_checkpoint(tmp_path)
    assert "consolidate_safetensors_files" in str(refused.value.hint)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_whole_tensors_in_safetensors(tmp_path: Path) -> None:
    """Where torch's distributed checkpoint writes an index, every tensor lies whole in one file."""
    state = small_net().state_dict()
    places = {name: 1 + number % 2 for number, name in enumerate(state)}
    save(state, storage_writer=HuggingFaceStorageWriter(str(tmp_path), fqn_to_index_mapping=places))
    assert_same(opened(tmp_path), state)


def test_no_adapter_of_peft(tmp_path: Path) -> None:
    """AdapterHub's adapters lie beside an adapter_config.json too, written here by hand: the save is not blamed."""
    torch.save(
        {"bert.encoder.layer.0.output.adapters.a.adapter_up.weight": torch.ones(2)}, tmp_path / "pytorch_adapter.bin"
    )
    (tmp_path / "adapter_config.json").write_text(
        '{"config": {"architecture": null}, "model_type": "bert", "name": "a"}'
    )
    for path, how in ((".", How()), (".", How("pytorch_adapter.bin")), ("pytorch_adapter.bin", How())):
        with pytest.raises(CheckpointError, match="an adapter of AdapterHub's library adapters") as refused:
            open_checkpoint(tmp_path / path, how)
        assert "average_adapter" in (refused.value.hint or "")


def test_runs_of_another_program(tmp_path: Path) -> None:
    """A folder of spaCy's pipelines is not said to hold nothing, but what its folders are."""
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "config.cfg").write_text("[nlp]")
    with pytest.raises(CheckpointError, match="a: is a pipeline of spaCy"):
        open_checkpoint(tmp_path)
    (tmp_path / "model").write_bytes(b"\x85\xa5nodes\x93" + bytes(50))  # thinc's Model.to_bytes
    with pytest.raises(CheckpointError, match="model: is a model of thinc, of a pipeline of spaCy"):
        open_checkpoint(tmp_path / "model")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    """Empty folders, folders of folders, text, devices and absent paths each have a line and a hint of their own."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs/a").mkdir(parents=True)
    save_file(small_net().state_dict(), tmp_path / "runs/a/model.safetensors")
    (tmp_path / "text.pt").write_text("weights")
    os.mkfifo(tmp_path / "pipe")
    expected = {
        "empty": ("holds no checkpoint", "it is empty"),
        "runs": ("holds no checkpoint", "--ckpts '"),
        "text.pt": ("is a text, not weights: 'weights'", None),
        "pipe": ("neither a file nor a folder", None),
        "absent": ("no such file or folder", None),
    }
    for name, (message, hint) in expected.items():
        with pytest.raises(CheckpointError, match=message) as refused:
            open_checkpoint(tmp_path / name)
        assert (refused.value.hint or "").find(hint or "") >= 0
        assert str(refused.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize("ending", [".tmp", ".tmp4711", ".part", ".incomplete", ".bak", ".OLD", ".swp", "~"])
def test_what_is_not_yet_or_no_longer_the_weights(tmp_path: Path, ending: str) -> None:
    """A folder with nothing but a file that is written or put aside is no run; the file itself can be named."""
    (tmp_path / "run").mkdir()
    file = tmp_path / f"run/model.safetensors{ending}"
    save_file(small_net().state_dict(), file)
    with pytest.raises(CheckpointError, match=rf"run: holds only model.safetensors{re.escape(ending)}") as refused:
        open_checkpoint(tmp_path / "run")
    assert str(refused.value.hint).endswith(f"--ckpts {file}")
    assert open_checkpoint(file).tensors


def test_hugging_face_trainer(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """checkpoint-N of a real run: its weights, and what the Trainer measured at that step."""
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        save_steps=1,
        eval_steps=1,
        eval_strategy="steps",
        metric_for_best_model="eval_loss",
        load_best_model_at_end=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(copy.deepcopy(model), arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    for step in (1, 2):
        folder = tmp_path / f"checkpoint-{step}"
        assert {"optimizer.pt", "training_args.bin", "trainer_state.json"} <= {path.name for path in folder.iterdir()}
        checkpoint = open_checkpoint(folder)
        state = json.loads((folder / "trainer_state.json").read_text())
        last = next(entry for entry in reversed(state["log_history"]) if "eval_loss" in entry)
        assert checkpoint.origin.metrics == {"eval_loss": last["eval_loss"], "best_metric": state["best_metric"]}
    with pytest.raises(CheckpointError, match="holds no checkpoint") as refused:
        open_checkpoint(tmp_path)
    assert "checkpoint-1, checkpoint-2" in str(refused.value.hint)


@pytest.mark.parametrize("text", ["", "[]", '{"global_step": 1}', '{"global_step": 1, "log_history": [3]}', "[" * 9999])
def test_broken_trainer_state(tmp_path: Path, text: str) -> None:
    """Metrics that cannot be read are not shown; the weights are none the worse."""
    save_file(small_net().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "trainer_state.json").write_text(text)
    assert open_checkpoint(tmp_path).origin.metrics == {}
