"""A soup of several files as the ingredients were: shards, pipelines, NeMo's archives, distributed checkpoints."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from soupcli.checkpoints.open import open_checkpoint
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.own_format import chosen_format
from tests.conftest import Ran, build_net
from tests.helpers.means import mean64

Soup = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def nets(count: int = 3) -> list[nn.Sequential]:
    """Networks that differ in every weight."""
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(build_net())
    return made


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_shards_of_torch_save(soup: Soup) -> None:
    """`pytorch_model-0000x-of-..bin` and their index: as many files, the same names, opened by their own writer."""
    made = nets()
    for number, net in enumerate(made):
        Path(f"runs/{number}").mkdir(parents=True)
        huggingface_hub.save_torch_state_dict(
            net.state_dict(), f"runs/{number}", safe_serialization=False, max_shard_size=400
        )
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    assert sorted(path.name for path in Path("soup").iterdir()) == ["README.md", "model.safetensors", "soup.json"]
    ran = soup("uniform", "--ckpts", "runs/*/", "--format", "same", "--force", "--json")
    assert ran.code == 0, ran.stderr
    names = {path.name for path in Path("runs/0").iterdir()}
    assert len(names) > 2 and {path.name for path in Path("soup").iterdir()} == {*names, "README.md", "soup.json"}
    huggingface_hub.load_torch_model(opened := build_net(), "soup", strict=True, safe=False)
    assert_equal(opened.state_dict(), mean64([net.state_dict() for net in made]))
    report = json.loads(ran.stdout)["soup"]
    assert report["path"] == "soup/pytorch_model.bin.index.json" and report["format"] == "torch"
    assert set(report["weight_files"]) == {name for name in names if name.endswith(".bin")}
    assert soup("verify", "soup", "--rebuild").code == 0
    words = ("uniform", "--ckpts", "runs/*/", "--format", "same", "--dtype", "bfloat16", "--out", "half")
    assert soup(*words).code == 0
    index = json.loads(Path("half/pytorch_model.bin.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in made[0].state_dict().values())
    shard = Path("soup", min(report["weight_files"]))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    assert soup("verify", "soup").code == 1


def test_a_pipeline_of_both_formats(soup: Soup) -> None:
    """One component in safetensors, one by torch.save: each as it was; --format torch writes both by torch.save."""
    made = nets(4)
    for number in range(2):
        Path(f"runs/{number}/unet").mkdir(parents=True)
        Path(f"runs/{number}/vae").mkdir()
        Path(f"runs/{number}/model_index.json").write_text('{"_class_name": "Pipe"}')
        torch.save(made[number].state_dict(), f"runs/{number}/unet/diffusion_pytorch_model.bin")
        save_file(made[number + 2].state_dict(), f"runs/{number}/vae/diffusion_pytorch_model.safetensors")
    unet, vae = (mean64([net.state_dict() for net in pair]) for pair in (made[:2], made[2:]))
    assert soup("uniform", "--ckpts", "runs/*/", "--format", "same").code == 0
    assert_equal(torch.load("soup/unet/diffusion_pytorch_model.bin"), unet)
    assert_equal(load_file("soup/vae/diffusion_pytorch_model.safetensors"), vae)
    assert not Path("soup/vae/diffusion_pytorch_model.bin").exists()
    assert soup("verify", "soup", "--rebuild").code == 0
    assert soup("uniform", "--ckpts", "runs/*/", "--format", "torch", "--force", "--set", "include=[]").code == 0
    assert_equal(torch.load("soup/vae/diffusion_pytorch_model.bin"), vae)
    assert soup("uniform", "--ckpts", "runs/*/", "--force").code == 0
    assert_equal(load_file("soup/unet/diffusion_pytorch_model.safetensors"), unet)


def save_nemo(net: nn.Module, file: Path) -> None:
    """As NeMo's SaveRestoreConnector writes it: a configuration, the weights, and whatever the model registered."""
    content = io.BytesIO()
    torch.save(net.state_dict(), content)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:") as tar:
        for name, data in {
            "./model_config.yaml": b"target: a.b\n",
            "./model_weights.ckpt": content.getvalue(),
            "./0a_tokenizer.model": b"words",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("words", ["runs/*/", "runs/*/model.nemo"])
def test_nemo(soup: Soup, words: str) -> None:
    """A .nemo file, without being asked for: other weights in the same archive, every checksum right."""
    made = nets()
    for number, net in enumerate(made):
        save_nemo(net, Path(f"runs/{number}/model.nemo"))
    assert soup("uniform", "--ckpts", words).code == 0
    with tarfile.open("soup/model.nemo") as tar:
        assert tar.getnames() == ["./model_config.yaml", "./model_weights.ckpt", "./0a_tokenizer.model"]
        weights = tar.extractfile("./model_weights.ckpt")
        assert weights is not None
        data = weights.read()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
    assert_equal(torch.load(io.BytesIO(data)), mean64([net.state_dict() for net in made]))
    assert len(open_checkpoint(Path("soup")).origin.members) == len(made)
    assert soup("verify", "soup", "--rebuild").code == 0
    refused = soup("uniform", "--ckpts", words, "--dtype", "bfloat16", "--format", "same", "--force")
    assert refused.code == 2 and "model.nemo: tensor" in refused.stderr and "--format safetensors" in refused.stderr


def save_distributed(state: dict[str, Any], folder: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        state_dict_saver.save(state, checkpoint_id=folder)


def load_distributed(state: dict[str, Any], folder: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        state_dict_loader.load(state, checkpoint_id=folder)
    return state


def test_distributed_checkpoints(soup: Soup) -> None:
    """torch's own loader opens the soup; optimizers are left out of it and said, or kept if asked for."""
    made, states = nets(), list[Any]()
    for number, net in enumerate(made):
        optimizer = torch.optim.AdamW(net.parameters())
        net(torch.randn(4, 8)).sum().backward()
        optimizer.step()
        states.append(get_optimizer_state_dict(net, optimizer))
        save_distributed({"model": net.state_dict(), "optim": states[-1], "step": 7}, f"runs/{number}")
    expected = mean64([net.state_dict() for net in made])
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    assert_equal(load_file("soup/model.safetensors"), expected)
    ran = soup("uniform", "--ckpts", "runs/*/", "--format", "same", "--force")
    assert ran.code == 0 and "optim: training state, left out (--keep-state keeps it)" in ran.stderr
    empty = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    assert_equal(load_distributed({"model": empty}, "soup")["model"], expected)
    dcp_to_torch_save("soup", "whole.pt")
    whole = torch.load("whole.pt")
    assert_equal(whole["model"], expected)
    assert whole["step"] == 7 and "optim" not in whole
    sizes = [sum(file.stat().st_size for file in Path(name).glob("*.distcp")) for name in ("soup", "runs/0")]
    assert sizes[0] < sizes[1] / 2
    assert len(open_checkpoint(Path("soup")).origin.members) == len(made)
    assert soup("verify", "soup", "--rebuild").code == 0 and soup("inspect", "--ckpts", "soup", "runs/*/").code == 0
    assert soup("uniform", "--ckpts", "runs/*/", "--format", "torch", "--out", "torch").code == 0
    assert_equal(torch.load("torch/pytorch_model.bin"), expected)
    kept = ("--format", "same", "--keep-state", "--force")
    assert soup("uniform", "--ckpts", "runs/*/", *kept).code == 0
    dcp_to_torch_save("soup", "whole.pt")
    whole = torch.load("whole.pt")
    assert_equal(whole["model"], expected)
    assert all(
        torch.equal(whole["optim"]["state"][name]["exp_avg"], state["exp_avg"])
        for name, state in states[0]["state"].items()
    )


def test_distributed_below(soup: Soup) -> None:
    """An optimizer that lies beside the network below another part, as in composer's, is left out and said."""
    made = nets()
    for number, net in enumerate(made):
        training = {"optimizers": {"AdamW": {"exp_avg": torch.ones(3)}}, "run_name": "a"}
        save_distributed({"state": {"model": net.state_dict(), **training}, "rng": torch.ones(2)}, f"runs/{number}")
    ran = soup("uniform", "--ckpts", "runs/*/", "--format", "same")
    assert ran.code == 0 and "state.optimizers: training state, left out" in ran.stderr
    dcp_to_torch_save("soup", "whole.pt")
    whole = torch.load("whole.pt")
    assert whole.keys() == {"state"} and whole["state"].keys() == {"model", "run_name"}
    assert_equal(whole["state"]["model"], mean64([net.state_dict() for net in made]))


@pytest.mark.parametrize(
    ("name", "content", "beside"),
    [
        ("runner.last.pth", {"model_state_dict": None, "epoch_step": 1, "batch_step": 8}, ()),  # catalyst 22
        ("model.best.pth", None, ("model.storage.json",)),  # and its mode `model`
        ("BPR.pth", {"config": {}, "state_dict": None, "other_parameter": None}, ()),  # RecBole
        ("checkpoint_000000978_4005888.pth", {"train_step": 1, "env_steps": 8, "model": None}, ()),  # Sample Factory
        ("trainer.pt", {"collector": {}, "loss_module": None, "state": {}}, ()),  # TorchRL
        ("cat.pt", {"string_to_token": {"*": 265}, "string_to_param": None}, ()),  # a textual inversion
        ("prediction-net-state.pt", None, ("gluonts-config.json", "predictor.json")),
    ],
)
def test_files_that_one_library_reads(name: str, content: Any, beside: tuple[str, ...]) -> None:
    """A soup is such a file again by default: their program opens no other."""
    state = nets(1)[0].state_dict()
    filled = {key: state if value is None else value for key, value in (content or {}).items()}
    torch.save(filled or state, name)
    for other in beside:
        Path(other).write_text("{}")
    assert chosen_format(Mixture.uniform([open_checkpoint(Path(name))]), None) == ("torch", "")


def test_megatron(soup: Soup) -> None:
    """Its names are flat, its optimizer is beside the network, and the soup has its tracker and its common.pt."""
    made = nets()
    for number, net in enumerate(made):
        flat = {f"decoder.{name}": tensor for name, tensor in net.state_dict().items()}
        moments = {f"optimizer.state.exp_avg.{name}": tensor * 2 for name, tensor in flat.items()}
        save_distributed({**flat, **moments}, f"runs/{number}/iter_0000020")
        torch.save({"iteration": 20, "args": None}, f"runs/{number}/iter_0000020/common.pt")
        Path(f"runs/{number}/iter_0000020/metadata.json").write_text('{"sharded_backend": "torch_dist"}')
        Path(f"runs/{number}/iter_0000020/run_config.yaml").write_text("model: {}")  # Megatron-Bridge's, as the next
        torch.save({"step": torch.tensor(20)}, f"runs/{number}/iter_0000020/train_state.pt")
        torch.save({"step": torch.tensor(20)}, f"runs/{number}/latest_train_state.pt")
        Path(f"runs/{number}/iter_0000020/tokenizer").mkdir()
        Path(f"runs/{number}/iter_0000020/tokenizer/tokenizer.json").write_text("{}")
        Path(f"runs/{number}/latest_checkpointed_iteration.txt").write_text("20")
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0 and "optimizer: training state, left out" in ran.stderr
    assert Path("soup/latest_checkpointed_iteration.txt").read_text() == "20"
    inside = Path("soup/iter_0000020")
    names = {
        ".metadata",
        "__0_0.distcp",
        "common.pt",
        "metadata.json",
        "run_config.yaml",
        "train_state.pt",
        "tokenizer",
    }
    assert {file.name for file in inside.iterdir()} == names
    trackers = {"latest_checkpointed_iteration.txt", "latest_train_state.pt"}
    assert {file.name for file in Path("soup").iterdir()} == {*trackers, "iter_0000020", "README.md", "soup.json"}
    expected = mean64([{f"decoder.{name}": t for name, t in net.state_dict().items()} for net in made])
    empty = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    assert_equal(load_distributed(dict(empty), str(inside)), expected)
    assert soup("uniform", "--ckpts", "runs/*/iter_0000020", "--out", "inner").code == 0
    assert_equal(load_distributed(dict(empty), "inner"), expected)
    assert soup("verify", "soup", "--rebuild").code == 0 and soup("verify", "inner", "--rebuild").code == 0


def test_deepspeed_without_zero(soup: Soup) -> None:
    """DeepSpeed's engine without ZeRO: `latest`, a step of its own for each run, and one file with `module`."""
    made = nets()
    for number, net in enumerate(made):
        folder = Path(f"runs/{number}/global_step{number + 1}")
        folder.mkdir(parents=True)
        saved = {"module": net.state_dict(), "optimizer": torch.optim.AdamW(net.parameters()).state_dict()}
        settings = {"ds_version": "0.19", "mp_world_size": 1, "ds_config": {"zero_optimization": {"stage": 0}}}
        torch.save(saved | settings | {"mine": number}, folder / "mp_rank_00_model_states.pt")
        (folder.parent / "latest").write_text(folder.name)
        (folder.parent / "config.json").write_text("{}")
    expected = mean64([net.state_dict() for net in made])
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0, ran.stderr
    assert "sub-folders" not in ran.stderr
    step = Path("soup/latest").read_text()
    found = torch.load(f"soup/{step}/mp_rank_00_model_states.pt", weights_only=True)
    assert_equal(found["module"], expected)
    assert found["mine"] == int(step[-1]) - 1
    assert soup("verify", "soup", "--rebuild").code == 0
    assert Path("soup/config.json").is_file()
    assert soup("uniform", "--ckpts", "runs/*/*/", "--out", "tag").code == 0  # as `load_checkpoint(".", tag="tag")`
    assert_equal(torch.load("tag/mp_rank_00_model_states.pt", weights_only=True)["module"], expected)
    assert soup("uniform", "--ckpts", "runs/*/", "--format", "safetensors", "--out", "plain").code == 0
    assert_equal(load_file("plain/model.safetensors"), expected)
    assert not Path("plain/latest").exists()


def test_olmo_core(soup: Soup) -> None:
    """OLMo-core's steps: the network and its optimizer in `model_and_optim/`, beside the state of the training."""
    made = nets()
    for number, net in enumerate(made):
        folder = Path(f"runs/{number}/step100")
        state = {"model": net.state_dict(), "optim": {"w": torch.ones(3)}}
        save_distributed(state, str(folder / "model_and_optim"))
        (folder / "train").mkdir()
        torch.save({"global_step": 100, "rng": {"torch": torch.zeros(8)}}, folder / "train/rank0.pt")
        (folder / "config.json").write_text("{}")
    expected = mean64([net.state_dict() for net in made])
    for words in ("runs/*/step100/", "runs/*/"):
        ran = soup("uniform", "--ckpts", words, "--format", "same", "--force")
        assert ran.code == 0 and "train" not in ran.stderr.replace("training", ""), ran.stderr
        empty = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
        assert_equal(load_distributed({"model": empty}, "soup/model_and_optim")["model"], expected)
        assert Path("soup/config.json").is_file()


def test_state_in_files_beside(soup: Soup) -> None:
    """Accelerate's save_state, the Trainer's checkpoints: a training goes on from the soup, by --keep-state."""
    state = ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "trainer_state.json")
    for number, net in enumerate(nets()):
        Path(f"runs/{number}").mkdir(parents=True)
        save_file(net.state_dict(), f"runs/{number}/model.safetensors")
        for name in state:
            Path(f"runs/{number}/{name}").write_text(f"{{}}{number}")
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    assert not any(Path("soup", name).exists() for name in state)
    ran = soup("uniform", "--ckpts", "runs/*/", "--keep-state", "--force", "--json")
    assert all(Path("soup", name).read_text() == "{}0" for name in state)
    report = json.loads(ran.stdout)["soup"]
    assert set(state) <= report["file_hashes"].keys()
    assert "optimizer.bin: as in the ingredient, not averaged" in report["left_out"]
    assert soup("verify", "soup").code == 0 and soup("verify", "soup", "--rebuild").code == 0
    assert soup("uniform", "--ckpts", "runs/*/", "--force").code == 0
    assert not any(Path("soup", name).exists() for name in state)


class Scaled(nn.Linear):
    """A layer that keeps a setting beside its tensors."""

    def __init__(self, scale: float) -> None:
        super().__init__(3, 2)
        self.scale = scale

    def get_extra_state(self) -> dict[str, float]:
        return {"scale": self.scale}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]


@pytest.mark.parametrize("scales", [(0.5, 0.5), (0.5, 2.0)])
def test_states_of_modules(soup: Soup, scales: tuple[float, float]) -> None:
    """What modules keep beside their tensors is in the soup, so that it loads as they do; a difference is said."""
    for number, scale in enumerate(scales):
        Path(f"runs/{number}").mkdir(parents=True)
        torch.save(nn.Sequential(Scaled(scale)).state_dict(), f"runs/{number}/net.pth")
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0, ran.stderr
    opened = nn.Sequential(Scaled(1.0))
    opened.load_state_dict(torch.load("soup/net.pth"))
    assert opened[0].scale == 0.5
    differs = 'in the file: 0._extra_state ({"scale": 0.5} | {"scale": 2.0})'
    assert (differs in ran.stderr) == (scales[0] != scales[1])
    plain = soup("uniform", "--ckpts", "runs/*/", "--format", "safetensors", "--out", "plain")
    assert plain.code == 0 and "without 0._extra_state, which is no tensor" in plain.stderr


PLAIN = {"w": torch.ones(4, 4), "temperature": 0.07}


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([{"temperature": 0.2}], "in the file: temperature (0.07 | 0.2)"),
        ([{"levels": [1, 2]}, {"levels": [1, 3]}], "in the file: levels ([1, 2] | [1, 3])"),
        ([{"sharpness": np.float64(2)}, {"sharpness": np.float64(3)}], "in the file: sharpness (2.0 | 3.0)"),
        ([{}], ""),
        ([{"epoch": 1, "best_auc": 0.5, "seed": 3, "n_samples": 10}, {"epoch": 2, "best_auc": 0.6, "seed": 4}], ""),
    ],
)
@pytest.mark.parametrize("key", [None, "model"])
def test_numbers_among_the_tensors(soup: Soup, others: list[dict[str, object]], expected: str, key: str | None) -> None:
    """Plain numbers in a state dict are neither lost nor, if they differ, taken from one without a word."""
    others = [{}, *others][-2:]
    for number, other in enumerate(others):
        Path(f"runs/{number}").mkdir(parents=True)
        state = {**PLAIN, "w": torch.full((4, 4), float(number)), **other}
        torch.save({key: state} if key else state, f"runs/{number}/net.pth")
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0, ran.stderr
    assert expected.replace("file: ", f"file: {key}." if key else "file: ") in ran.stderr
    assert bool(expected) == ("different networks" in ran.stderr)
    opened = torch.load("soup/net.pth", weights_only=False)
    assert (opened[key] if key else opened)["temperature"] == 0.07
    plain = soup("uniform", "--ckpts", "runs/*/", "--format", "safetensors", "--out", "plain")
    assert plain.code == 0 and "without temperature" in plain.stderr


def test_numbers_of_a_training_keep_no_format(soup: Soup) -> None:
    """Records of a training among the tensors are no part of the network."""
    for number in range(2):
        Path(f"runs/{number}").mkdir(parents=True)
        torch.save(
            {"w": torch.full((4, 4), float(number)), "epoch": number, "val_loss": 0.5 + number},
            f"runs/{number}/net.pth",
        )
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0 and Path("soup/model.safetensors").is_file() and "without" not in ran.stderr


def test_threshold_beside_the_network(soup: Soup) -> None:
    """What is done with the outputs is no number of the training."""
    for number in range(2):
        Path(f"runs/{number}").mkdir(parents=True)
        torch.save(
            {"model": {"w": torch.full((4, 4), float(number))}, "threshold": 0.5 + number}, f"runs/{number}/net.pth"
        )
    assert "threshold (0.5 | 1.5)" in soup("uniform", "--ckpts", "runs/*/").stderr
