"""Files beside the weights of a folder: mixed with them, refused or named, and never dropped in silence."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from soupcli.checkpoints.find import find
from soupcli.checkpoints.open import How
from soupcli.errors import CheckpointError
from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import assert_same, opened, small_net
from tests.helpers.means import mean64

Soup = Callable[..., Ran]


def body(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    save_file(small_net(seed).state_dict(), folder / "model.safetensors")
    return folder


def head(seed: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(3, 1).state_dict()


def test_heads_of_an_encoder(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlagEmbedding's M3 keeps two heads beside its body, and makes new ones without a word if they are not there."""
    monkeypatch.chdir(tmp_path)
    names = ("colbert_linear.pt", "sparse_linear.pt")
    for seed in range(2):
        body(tmp_path / f"runs/{seed}", seed)
        for number, name in enumerate(names):
            torch.save(head(10 * number + seed), f"runs/{seed}/{name}")
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0, ran.stderr
    assert_same(load_file("soup/model.safetensors"), mean64([small_net(seed).state_dict() for seed in range(2)]))
    for number, name in enumerate(names):
        assert_same(torch.load(f"soup/{name}"), mean64([head(10 * number + seed) for seed in range(2)]))
    assert soup("verify", "soup", "--rebuild").code == 0


def test_adapters_of_languages(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """MMS keeps an adapter for each language beside a Wav2Vec2: all are mixed, and a missing one is refused."""
    monkeypatch.chdir(tmp_path)
    names = ("adapter.eng.safetensors", "adapter.fra.bin")
    for seed in range(2):
        body(tmp_path / f"runs/{seed}", seed)
        Path(f"runs/{seed}/config.json").write_text('{"adapter_attn_dim": 4}')
        save_file(head(seed), f"runs/{seed}/{names[0]}")
        torch.save(head(10 + seed), f"runs/{seed}/{names[1]}")
        torch.save(head(20), f"runs/{seed}/adapter.eng.bin")  # transformers reads the other one
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0, ran.stderr
    assert_same(load_file("soup/adapter.eng.safetensors"), mean64([head(seed) for seed in range(2)]))
    assert_same(load_file("soup/adapter.fra.safetensors"), mean64([head(10 + seed) for seed in range(2)]))
    Path("runs/1", names[1]).unlink()
    ran = soup("uniform", "--ckpts", "runs/*/", "--out", "other")
    assert ran.code == 2 and "has no tensor 'adapter.fra/" in ran.stderr
    Path("runs/0/config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds weights in adapter\.eng\.bin beside model\.safetensors"):
        find(["runs/0"])


def test_other_weights_beside(tmp_path: Path) -> None:
    """A file of other tensors is refused with the way out; the same network's other forms are named, not mixed."""
    run = body(tmp_path / "run")
    torch.save(small_net(3).state_dict(), run / "last.pt")
    save_file({"other.name": torch.ones(2)}, run / "consolidated.safetensors")
    torch.save(small_net(3).state_dict(), run / "pytorch_model.bin")
    torch.save({"state": {0: {"m": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]}, run / "adam.pt")
    said = find([str(run)]).notes
    assert said == [
        f"{run}: its other files are not mixed, they hold other checkpoints or forms: consolidated.safetensors, last.pt"
    ]
    save_file(head(0), run / "value_head.safetensors")
    with pytest.raises(
        CheckpointError, match=r"holds weights in value_head\.safetensors beside model\.safet"
    ) as refused:
        find([str(run)])
    assert "--weights-name model.safetensors" in str(refused.value.hint)
    assert len(find([str(run)], how=How(weights_name="model.safetensors")).checkpoints) == 1


def test_numbers_beside(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics are those of one ingredient: said if another one has others. Mixed links are not called left out."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        body(tmp_path / f"store/{seed}", seed)
        run = tmp_path / f"runs/{seed}"
        run.mkdir(parents=True)
        (run / "model.safetensors").symlink_to(tmp_path / f"store/{seed}/model.safetensors")
        (run / "scaler.pkl").write_bytes(pickle.dumps([float(seed)]))
        (run / "same.npy").write_bytes(b"the same")
        (run / "head.npz").write_bytes(b"numbers")
    ran = soup("uniform", "--ckpts", "runs/*/", "--json")
    assert ran.code == 0, ran.stderr
    assert json.loads(ran.stdout)["soup"]["left_out"] == [
        "head.npz: numbers that are not mixed",
        "scaler.pkl: is that of runs/0, not a mean; runs/1 has another",
    ]
    assert Path("soup/scaler.pkl").read_bytes() == Path("runs/0/scaler.pkl").read_bytes()


def test_a_pointer_beside(tmp_path: Path) -> None:
    """A head that was not fetched is missed, and not taken for something that does not matter."""
    run = body(tmp_path / "run")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 9\n"
    (run / "pytorch_model.bin").write_text(pointer)
    assert len(find([str(run)]).checkpoints) == 1
    (run / "value_head.safetensors").write_text(pointer)
    with pytest.raises(CheckpointError, match=r"value_head\.safetensors: is a Git LFS pointer"):
        find([str(run)])


def test_a_head_in_a_pickle(tmp_path: Path) -> None:
    """SetFit's head is a whole object in a pickle: it is not taken from one ingredient in silence."""
    run = body(tmp_path / "run")
    (run / "model_head.pkl").write_bytes(pickle.dumps({"coef_": [1.0]}))
    assert len(find([str(run)]).checkpoints) == 1
    (run / "config_setfit.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"its head lies in model_head\.pkl"):
        find([str(run)])


def test_training_state_alone(tmp_path: Path) -> None:
    """A file with nothing but the state of a training is no checkpoint of its folder, whatever it is called."""
    torch.save({"params": small_net().state_dict()}, tmp_path / "net_g_5000.pth")
    torch.save(
        {"iter": 5000, "optimizers": [{"state": {0: torch.ones(2)}, "param_groups": []}]}, tmp_path / "5000.state"
    )
    assert_same(opened(tmp_path), small_net().state_dict())
    torch.save({"iter": 6000, "prototypes": torch.ones(2)}, tmp_path / "6000.state")
    with pytest.raises(CheckpointError, match=r"holds 2 files with other tensors each, 6000\.state, net_g_5000\.pth"):
        opened(tmp_path)


def test_parts_under_invented_names(tmp_path: Path) -> None:
    """Files of one network without an index are no checkpoints to pick from; of a named one it is said what it lacks.

    The hint's way out is one file with all tensors.
    """
    run, state = tmp_path / "run", small_net().state_dict()
    run.mkdir()
    names = sorted(state)
    for part, held in (("part_a", names[:2]), ("part_b", names[2:])):
        save_file({name: state[name] for name in held}, run / f"{part}.safetensors")
    with pytest.raises(
        CheckpointError, match=r"2 files with other tensors each, part_a\.safetensors, part_b"
    ) as refused:
        find([str(run)])
    assert "write all tensors into one model.safetensors" in str(refused.value.hint)
    said = find([str(run)], how=How(weights_name="part_a.safetensors")).notes
    assert said == [f"{run}: part_b.safetensors is not mixed and not in the soup, it holds other tensors"]
    save_file({name: torch.ones(1) for name in names}, run / "part_b.safetensors")
    with pytest.raises(CheckpointError, match="holds 2 checkpoints"):
        find([str(run)])
    assert not find([str(run)], how=How(weights_name="part_a.safetensors")).notes


def test_training_state_in_a_sub_folder(tmp_path: Path) -> None:
    """torchtune's `recipe_state/` is no broken checkpoint of the run."""
    run = body(tmp_path / "run/epoch_0").parent
    (run / "recipe_state").mkdir()
    state = {"state": {0: torch.ones(2)}, "param_groups": []}
    torch.save({"seed": 1, "optimizer": state}, run / "recipe_state/recipe_state.pt")
    assert [one.path for one in find([str(run)]).checkpoints] == [run / "epoch_0"]


def test_a_program_beside_weights(tmp_path: Path) -> None:
    """MONAI's bundles have the same network as a program of TorchScript: the weights are taken, alone it is refused."""
    with pytest.warns(FutureWarning):
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "model.ts")
    with pytest.raises(CheckpointError, match=r"model\.ts: a TorchScript archive"):
        opened(tmp_path)
    torch.save(small_net().state_dict(), tmp_path / "model.pt")
    assert_same(opened(tmp_path), small_net().state_dict())


@pytest.mark.parametrize(
    ("content", "beside"),
    [
        ({"dims": {"n_mels": 80}, "model_state_dict": None}, {}),  # OpenAI's Whisper
        ({"weight": None, "config": [1], "info": "200epoch", "sr": "40k"}, {}),  # RVC
        ({"config": {}, "model": None, "step": 1, "model_loss": 0.5}, {}),  # Coqui's trainer
        ({"model": None, "optimizer": {}, "model_args": {}, "iter_num": 5}, {}),  # nanoGPT
        ({"__cls__": "flair.models.TextClassifier", "state_dict": None}, {}),  # flair
        ({"model": None, "optimizer": {}, "epoch": 1, "args": None}, {}),  # torchvision's references, MAE
        ({"params": None}, {}),  # BasicSR
        ({"model": None, "opt": {"state": [{"m": torch.ones(2)}], "hypers": []}}, {}),  # fastai looks for both keys
        ({"model": None, "optimizer_history": [{"num_updates": 3}], "extra_state": {}}, {}),  # fairseq: for all three
        ({"model": None}, {"model_config.yaml": "name: x\n"}),  # LitGPT
    ],
)
def test_files_that_one_library_reads(
    tmp_path: Path, soup: Soup, content: dict[str, Any], beside: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default a soup is such a file again, with all keys that its program looks for, and no training state else."""
    monkeypatch.chdir(tmp_path)
    key = next(name for name in content if content[name] is None and name != "args")
    for seed in range(2):
        Path(f"runs/{seed}").mkdir(parents=True)
        torch.save({**content, key: small_net(seed).state_dict()}, f"runs/{seed}/lit_model.pth")
        for name, text in beside.items():
            Path(f"runs/{seed}/{name}").write_text(text)
    ran = soup("uniform", "--ckpts", "runs/*/", "--json")
    assert ran.code == 0, ran.stderr
    assert json.loads(ran.stdout)["soup"]["path"] == "soup/lit_model.pth"
    found = torch.load("soup/lit_model.pth", weights_only=False)
    assert_same(found[key], mean64([small_net(seed).state_dict() for seed in range(2)]))
    assert found.keys() == content.keys() - {"optimizer"}


def test_training_state_by_content(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer under a name of the user's own (`opt_g`) is left out of the soup, as it is when weights are read."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        state = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
        torch.save({"net": small_net(seed).state_dict(), "mine": state, "epoch": 1}, f"{seed}.pt")
    ran = soup("uniform", "--ckpts", "0.pt", "1.pt", "--format", "same")
    assert ran.code == 0 and "mine: training state, left out" in ran.stderr
    assert torch.load("soup/model.pt").keys() == {"net", "epoch"}


def test_very_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with names of weights are looked into up to a number, beside weights and alone; the way out is said."""
    place, alone = body(tmp_path / "run"), tmp_path / "alone"
    alone.mkdir()
    for number in range(4):
        (place / f"{number}.pt").touch()
        (alone / f"{number}.pt").touch()
    for at, module in ((place, "beside"), (alone, "folder")):
        monkeypatch.setattr(f"soupcli.checkpoints.formats.folders.{module}.MOST_FILES", 3)
        with pytest.raises(CheckpointError, match="holds 4 files with names of weights, at most 3 are looked into"):
            find([str(at)])
    assert find([str(place)], how=How(weights_name="model.safetensors")).checkpoints
