"""A soup as torch.save wrote the ingredients: torch opens it, all else in the file stays, and the means are exact."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import assert_same, opened
from tests.helpers.means import mean64

Soup = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Net(nn.Module):
    """Tied, transposed, sliced and scalar tensors of several dtypes, in no special order."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 4)
        self.embed = nn.Embedding(8, 6)
        self.head = nn.Linear(6, 8, bias=False)
        self.head.weight = self.embed.weight
        self.turned = nn.Parameter(torch.randn(5, 3).T)
        self.brief = nn.Parameter(torch.randn(7).bfloat16())
        self.norm = nn.BatchNorm1d(4)
        whole = torch.randn(10)
        self.register_buffer("low", whole[:4])
        self.register_buffer("high", whole[6:])
        self.register_buffer("one", torch.tensor(1.5))


def trained(seed: int) -> tuple[Net, dict[str, Any]]:
    """A network, and the state of an optimizer that has made a step."""
    torch.manual_seed(seed)
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    net.body(torch.randn(2, 6)).sum().backward()
    optimizer.step()
    return net, optimizer.state_dict()


def assert_mean(found: dict[str, Tensor], states: list[dict[str, Tensor]]) -> None:
    expected = mean64(states)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def checked(file: str) -> Any:
    """The file as torch reads it, with every checksum of its archive right."""
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("order", [("optimizer", "model"), ("model", "optimizer")])
def test_training_checkpoints(soup: Soup, order: tuple[str, str]) -> None:
    """The optimizer is left out and said, all else stays, wherever it stands in the file; --keep-state keeps it."""
    states = []
    for seed in range(3):
        net, optimizer = trained(seed)
        states.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        parts = {"optimizer": optimizer, "model": net.state_dict()}
        content = {"epoch": 7, **{name: parts[name] for name in order}, "args": {"lr": 0.1, "name": "optimizer"}}
        Path(f"runs/{seed}").mkdir(parents=True)
        torch.save(content, f"runs/{seed}/last.pth")
    ran = soup("uniform", "--ckpts", "runs/*/last.pth", "--format", "same", "--json")
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)["soup"]
    assert (report["path"], report["format"]) == ("soup/last.pth", "torch")
    assert report["left_out"] == ["last.pth: optimizer: training state, left out (--keep-state keeps it)"]
    found = checked("soup/last.pth")
    assert [*found] == [name for name in ("epoch", *order, "args") if name != "optimizer"]
    assert found["epoch"] == 7 and found["args"] == {"lr": 0.1, "name": "optimizer"}
    assert_mean(found["model"], states)
    assert found["model"]["embed.weight"].data_ptr() == found["model"]["head.weight"].data_ptr()
    assert Path("soup/last.pth").stat().st_size < Path("runs/0/last.pth").stat().st_size
    assert soup("verify", "soup", "--rebuild").code == 0
    first = Path("soup/last.pth").read_bytes()
    assert soup("uniform", "--ckpts", "runs/*/last.pth", "--format", "same", "--force", "--quiet").code == 0
    assert Path("soup/last.pth").read_bytes() == first
    assert (
        soup("uniform", "--ckpts", "runs/*/last.pth", "--format", "same", "--force", "--keep-state", "--quiet").code
        == 0
    )
    kept, original = checked("soup/last.pth"), torch.load("runs/0/last.pth")
    assert_mean(kept["model"], states)
    assert all(
        torch.equal(kept["optimizer"]["state"][number][name], value)
        for number, values in original["optimizer"]["state"].items()
        for name, value in values.items()
    )
    assert soup("verify", "soup").code == 0


def test_formats(soup: Soup) -> None:
    """A bare state dict becomes safetensors by default, a copy with `same`; safetensors become torch's if asked for."""
    states = []
    for seed in range(2):
        net, _ = trained(seed)
        states.append(net.state_dict())
        torch.save(states[-1], f"{seed}.pt")
    words = ["uniform", "--ckpts", "0.pt", "1.pt", "--quiet", "--force"]
    assert soup(*words, "--out", "a").stdout == "a/model.safetensors\n"
    for format_ in ("same", "torch"):
        ran = soup(*words, "--out", "b", "--format", format_)
        assert ran.stdout == "b/model.pt\n", ran.stderr
        assert_mean(checked("b/model.pt"), states)
    ran = soup("uniform", "--ckpts", "a", "a", "--out", "c", "--quiet", "--format", "torch")
    assert ran.stdout == "c/pytorch_model.bin\n", ran.stderr
    assert all(torch.equal(tensor, mean64(states)[name]) for name, tensor in checked("c/pytorch_model.bin").items())
    assert soup("verify", "c", "--rebuild").code == 0
    ran = soup("uniform", "--ckpts", "a", "--out", "d", "--quiet", "--format", "same")
    assert ran.stdout == "d/model.safetensors\n", ran.stderr


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_another_dtype(soup: Soup, dtype: torch.dtype) -> None:
    """--dtype converts every tensor of the network in the copy: shared, strided and sliced ones too."""
    states = []
    for seed in range(2):
        net, optimizer = trained(seed)
        states.append(net.state_dict())
        torch.save({"model": states[-1], "optimizer": optimizer, "epoch": 3}, f"{seed}.pt")
    words = ("--ckpts", "0.pt", "1.pt", "--dtype", str(dtype).removeprefix("torch."), "--format", "same")
    ran = soup("uniform", *words, "--quiet")
    assert ran.code == 0, ran.stderr
    content = checked("soup/model.pt")
    for name, tensor in content["model"].items():
        expected = torch.stack([state[name].double() for state in states]).mean(dim=0)
        wanted = expected.to(dtype) if tensor.is_floating_point() else states[0][name]
        assert tensor.dtype == wanted.dtype and torch.equal(tensor, wanted), name
    assert content["model"]["low"].untyped_storage().data_ptr() == content["model"]["high"].untyped_storage().data_ptr()
    assert content["epoch"] == 3 and "optimizer" not in content
    refused = soup("uniform", *words, "--keep-state", "--force")
    assert refused.code == 2 and "other tensors in it have the same dtype, and keep it" in refused.stderr


def test_another_dtype_of_a_whole_module(soup: Soup) -> None:
    """Numbers that no name of the state dict leads to, such as YOLO's strides, are converted as they are."""
    nets: list[Any] = []
    for seed in range(2):
        nets.append(trained(seed)[0])
        nets[-1].strides = torch.tensor([8.0, 16.0, 32.0])
        nets[-1].grid = torch.arange(6.0).reshape(2, 3).T
        torch.save({"model": nets[-1], "extra_state": {}}, f"{seed}.pt")
    assert soup("uniform", "--ckpts", "0.pt", "1.pt", "--dtype", "float64").code == 0
    net = torch.load("soup/model.pt", weights_only=False)["model"]
    assert torch.equal(net.strides, nets[0].strides.double()) and torch.equal(net.grid, nets[0].grid.double())
    for name, tensor in mean64([{name: t.double() for name, t in one.state_dict().items()} for one in nets]).items():
        assert name == "norm.num_batches_tracked" or torch.equal(net.state_dict()[name], tensor), name


def test_another_dtype_before_torch_1_6(soup: Soup) -> None:
    """A file without an archive has no room for other dtypes: refused by name, or written otherwise and said."""
    for seed in range(2):
        saved = {"model": trained(seed)[0].state_dict(), "extra_state": {}}
        torch.save(saved, f"{seed}.pt", _use_new_zipfile_serialization=False)
    words = ["uniform", "--ckpts", "0.pt", "1.pt", "--dtype", "float64"]
    ran = soup(*words, "--format", "same")
    assert ran.code == 2 and "0.pt: tensor 'turned' has dtype torch.float32, in the soup torch.float64" in ran.stderr
    ran = soup(*words, "--json")
    report = json.loads(ran.stdout)["soup"]
    assert report["path"] == "soup/model.safetensors" and "not as the ingredients were" in report["left_out"][0]


def test_mixed_precisions(soup: Soup) -> None:
    """Ingredients of float16 and float32 give float32, also if the best one's file is the narrower."""
    states = [trained(seed)[0].half().state_dict() for seed in range(1)]
    states += [trained(seed)[0].float().state_dict() for seed in range(1, 2)]
    for seed, state in enumerate(states):
        torch.save({"model": state, "extra_state": {}}, f"{seed}.pt")
    ran = soup("uniform", "--ckpts", "0.pt", "1.pt", "--format", "same")
    assert ran.code == 0, ran.stderr
    found = checked("soup/model.pt")["model"]
    for name, tensor in found.items():
        expected = torch.stack([state[name].double() for state in states]).mean(dim=0)
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float32 and torch.equal(tensor, expected.float()), name


def test_a_tensor_called_as_a_scaler(soup: Soup) -> None:
    """A bare state dict has no training state, whatever its tensors are called."""
    for seed in range(2):
        torch.save({"scaler": torch.full((3,), float(seed)), "w": torch.ones(2)}, f"{seed}.pt")
    assert soup("uniform", "--ckpts", "0.pt", "1.pt", "--format", "same").code == 0
    assert torch.equal(checked("soup/model.pt")["scaler"], torch.full((3,), 0.5))


def test_a_head_that_is_tied_in_one_alone(soup: Soup) -> None:
    """One place in the file cannot hold two means: refused by name, with what to do; nothing is left behind."""
    for seed in range(2):
        state = trained(seed)[0].state_dict()
        if seed:
            state["head.weight"] = torch.randn(8, 6)
        torch.save({"model": state, "extra_state": {}}, f"{seed}.pt")
    ran = soup("uniform", "--ckpts", "0.pt", "1.pt")
    assert (ran.code, Path("soup").exists()) == (2, False)
    assert "shares its memory with another one there, and not in all ingredients" in ran.stderr
    assert soup("uniform", "--ckpts", "0.pt", "1.pt", "--format", "safetensors").code == 0


def test_other_weights_in_the_file_are_named(soup: Soup) -> None:
    """What is averaged is the part that was taken; another copy of the network stays as it was, which is said."""
    states = []
    for seed in range(2):
        net, _ = trained(seed)
        states.append(net.state_dict())
        other = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        torch.save({"state_dict": other, "state_dict_ema": states[-1]}, f"{seed}.pth.tar")
    ran = soup("uniform", "--ckpts", "0.pth.tar", "1.pth.tar", "--format", "same", "--json")
    report = json.loads(ran.stdout)["soup"]
    assert report["path"] == "soup/model.pth.tar"
    assert report["left_out"] == ["model.pth.tar: state_dict: as in the ingredient, not averaged"]
    found = checked("soup/model.pth.tar")
    assert_mean(found["state_dict_ema"], states)
    assert torch.equal(found["state_dict"]["brief"], states[0]["brief"])


def test_before_torch_1_6(soup: Soup) -> None:
    """Files without an archive are copied and filled as well."""
    states = []
    for seed in range(2):
        states.append(trained(seed)[0].state_dict())
        torch.save({"model": states[-1], "cfg": 3}, f"{seed}.pt", _use_new_zipfile_serialization=False)
    ran = soup("uniform", "--ckpts", "0.pt", "1.pt", "--format", "same", "--quiet")
    assert ran.stdout == "soup/model.pt\n", ran.stderr
    found = torch.load("soup/model.pt", weights_only=True)
    assert found["cfg"] == 3
    assert_mean(found["model"], states)


@pytest.mark.filterwarnings("ignore")
def test_lightning(soup: Soup) -> None:
    """Lightning opens the soup of its checkpoints, hyper-parameters included."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Task(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, width: int = 4) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Linear(4, width)

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss: Tensor = self.net(batch[0]).sum()
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    data = torch.utils.data.TensorDataset(torch.randn(8, 4))
    states = []
    for seed in range(2):
        task = Task(width=5)
        trainer = lightning.Trainer(**options, enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(task, torch.utils.data.DataLoader(data, batch_size=4))
        Path(f"runs/{seed}").mkdir(parents=True)
        trainer.save_checkpoint(f"runs/{seed}/last.ckpt")
        states.append({name: tensor.clone() for name, tensor in task.state_dict().items()})
    ran = soup("uniform", "--ckpts", "runs/0/last.ckpt", "runs/1/last.ckpt", "--quiet")
    assert ran.stdout == "soup/last.ckpt\n", ran.stderr
    opened = Task.load_from_checkpoint("soup/last.ckpt")
    assert_mean(opened.state_dict(), states)
    assert "optimizer_states" not in torch.load("soup/last.ckpt", weights_only=False)


@pytest.mark.parametrize("form", ["key", "module", "bare"])
def test_an_unknown_program(soup: Soup, form: str) -> None:
    """Who reads the file is unknown: the soup is safetensors, a note names the way to such a file, and it works."""
    nets = [trained(seed)[0] for seed in range(2)]
    for seed, net in enumerate(nets):
        saved: Any = net if form == "module" else net.state_dict()
        torch.save({"model": saved, "epoch": 3} if form == "key" else saved, f"{seed}.pt")
    report = json.loads(soup("uniform", "--ckpts", "0.pt", "1.pt", "--json").stdout)["soup"]
    assert report["path"] == "soup/model.safetensors" and "--format same" in report["left_out"][0]
    same = soup("uniform", "--ckpts", "0.pt", "1.pt", "--format", "same", "--out", "same", "--quiet").stdout.strip()
    found = torch.load(same, weights_only=False)
    if form == "key":
        assert found.pop("epoch") == 3
    state = found["model"] if form == "key" else found.state_dict() if form == "module" else found
    assert_mean(state, [net.state_dict() for net in nets])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "timm.pth.tar"])
def test_libraries_that_read_safetensors(soup: Soup, name: str) -> None:
    """transformers looks for model.safetensors as well; timm's script is told what to do."""
    for seed in range(2):
        state = trained(seed)[0].state_dict()
        Path(f"{seed}").mkdir()
        torch.save({"arch": "a", "state_dict": state, "optimizer": {}} if "timm" in name else state, f"{seed}/{name}")
    report = json.loads(soup("uniform", "--ckpts", "0", "1", "--json").stdout)["soup"]
    assert report["path"] == "soup/model.safetensors"
    assert report["left_out"] == (
        ["written as safetensors: --format same writes files like the ingredients"] if "timm" in name else []
    )


@pytest.mark.parametrize(
    ("trained_key", "sign"), [("current_model_state", "averaging_state"), ("ema_state_dict", "message_hub")]
)
def test_trained_weights_beside_averaged_ones(soup: Soup, trained_key: str, sign: str) -> None:
    """A training goes on with them: they go with its state, so that no one takes one run's for the soup's."""
    nets = [trained(seed)[0] for seed in range(4)]
    for seed in range(2):
        content = {"state_dict": nets[seed].state_dict(), trained_key: nets[seed + 2].state_dict(), sign: {"steps": 3}}
        torch.save({**content, "meta": {}, "pytorch-lightning_version": "2.6", "global_step": 4}, f"{seed}.pth")
    ran = soup("uniform", "--ckpts", "0.pth", "1.pth", "--json")
    report = json.loads(ran.stdout)["soup"]
    assert {"state_dict", "meta"} <= set(torch.load(report["path"])) and trained_key not in torch.load(report["path"])
    assert any(f"{trained_key}: training state, left out" in line for line in report["left_out"])
    assert_mean(torch.load(report["path"])["state_dict"], [net.state_dict() for net in nets[:2]])
    assert_same(opened(Path(report["path"])), mean64([net.state_dict() for net in nets[:2]]))
    kept = soup("uniform", "--ckpts", "0.pth", "1.pth", "--keep-state", "--out", "kept", "--quiet").stdout.strip()
    assert trained_key in torch.load(kept)
