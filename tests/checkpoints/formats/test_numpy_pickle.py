"""Pickles of numpy arrays, as detectron2's model zoo has them: opened where they lie, and written back as they were."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import assert_same, opened, small_net
from tests.helpers.means import mean64

Soup = Callable[..., Ran]


def arrays(seed: int = 0) -> dict[str, Any]:
    """A network's weights as numpy has them, one of them by columns, one without dimensions."""
    found: dict[str, Any] = {name: tensor.numpy() for name, tensor in small_net(seed).state_dict().items()}
    found["turned"] = numpy.asfortranarray(numpy.random.default_rng(seed).standard_normal((3, 4, 5)))
    found["wide"] = numpy.random.default_rng(seed).standard_normal((300, 100)).astype(numpy.float32)
    return found


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy(order="C")) for name, array in arrays(seed).items()}


def zoo(seed: int = 0) -> dict[str, Any]:
    """The dict of detectron2's tools/convert-torchvision-to-d2.py."""
    return {"model": arrays(seed), "__author__": "torchvision", "matching_heuristics": True}


def pickled(path: Path, content: object, protocol: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("bare", [False, True])
def test_read(tmp_path: Path, protocol: int, bare: bool) -> None:
    """Every array comes out as it went in, in each protocol that holds bytes as they are."""
    path = pickled(tmp_path / "model_final.pkl", arrays() if bare else zoo(), protocol)
    assert_same(opened(path), tensors())
    found = open_checkpoint(path).origin
    assert (found.format, found.key) == (("numpy pickle", None) if bare else ("detectron2", "model"))


@pytest.mark.parametrize("protocol", [4, 5])
def test_written_back(tmp_path: Path, soup: Soup, protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """pickle.load, as DetectionCheckpointer calls it, opens the soup of two folders: the exact means, all else kept."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        pickled(tmp_path / f"runs/{seed}/model_final.pkl", zoo(seed), protocol)
    ran = soup("uniform", "--ckpts", "runs/*/", "--json")
    assert ran.code == 0, ran.stderr
    found = pickle.loads(Path("soup/model_final.pkl").read_bytes(), encoding="latin1")
    assert (found["__author__"], found["matching_heuristics"]) == ("torchvision", True)
    assert found["model"]["turned"].flags.f_contiguous
    state = {name: torch.from_numpy(array.copy(order="C")) for name, array in found["model"].items()}
    assert_same(state, mean64([tensors(0), tensors(1)]))
    assert json.loads(ran.stdout)["soup"]["path"] == "soup/model_final.pkl"
    assert soup("verify", "soup", "--rebuild").code == 0


def test_paddle(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dict of paddle.save(net.state_dict()): it opens its folder, not the optimizer's file, and so is the soup."""
    monkeypatch.chdir(tmp_path)
    names = {name: f"linear_0.{name}" for name in arrays()}
    for seed in range(2):
        pickled(tmp_path / f"runs/{seed}/model.pdparams", {**arrays(seed), "StructuredToParameterName@@": names})
        pickled(
            tmp_path / f"runs/{seed}/model.pdopt", {"moment1": numpy.ones((3, 4)), "LR_Scheduler": {"last_lr": 1.0}}
        )
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0, ran.stderr
    found = pickle.loads(Path("soup/model.pdparams").read_bytes())
    assert found.pop("StructuredToParameterName@@") == names and not Path("soup/model.pdopt").exists()
    assert_same({n: torch.from_numpy(a.copy(order="C")) for n, a in found.items()}, mean64([tensors(0), tensors(1)]))


def test_rllib(tmp_path: Path) -> None:
    """The state of an RLModule is a network, whose folder holds how it is built."""
    pickled(tmp_path / "module_state.pkl", arrays())
    pickled(tmp_path / "class_and_ctor_args.pkl", {"ctor_args_and_kwargs": ((), {})})
    assert open_checkpoint(tmp_path).origin.format == "RLlib"
    assert_same(opened(tmp_path), tensors())


def test_as_torch(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """--format torch of arrays is a plain state dict for torch.load."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        pickled(tmp_path / f"runs/{seed}/model_final.pkl", zoo(seed))
    ran = soup("uniform", "--ckpts", "runs/*/", "--format", "torch", "--quiet")
    assert_same(torch.load(ran.stdout.strip()), mean64([tensors(0), tensors(1)]))


def test_statistics_beside_weights(tmp_path: Path) -> None:
    """A pickle of arrays that nobody calls a network is no second checkpoint of its folder."""
    torch.save(small_net().state_dict(), tmp_path / "weights.pt")
    pickled(tmp_path / "normalisation.pkl", {"mean": numpy.ones(3), "std": numpy.ones(3)})
    assert_same(opened(tmp_path), small_net().state_dict())


@pytest.mark.parametrize(
    ("content", "protocol", "message"),
    [
        ({"model": {"w": numpy.ones(3)}}, 2, "tensor 'w' is an array whose bytes do not lie in the pickle"),
        ({"model": {"w": numpy.ones(3, dtype=">f4")}}, 4, "tensor 'w' is an array that is not read: its dtype is >f4"),
        ({"w": numpy.array(["a", "b"])}, 4, "its dtype is <U1"),
        ({"w": numpy.array([None, {}], dtype=object)}, 4, "tensor 'w' is an array"),
        ({"student": {"w": numpy.ones(3)}, "teacher": {"w": numpy.ones(3)}}, 4, "parts that may each be the network"),
        ({"net": {"w": numpy.ones(3)}, "model": {"w": numpy.zeros(3)}}, 4, "parts that may each be the network"),
        ([numpy.ones(3)], 4, "not a state dict"),
        (SimpleNamespace(classes_=numpy.arange(3)), 4, "is a pickled types.SimpleNamespace, not arrays by name"),
    ],
)
def test_refused(tmp_path: Path, content: object, protocol: int, message: str) -> None:
    """Arrays that have no plain numbers, and parts that may each be the network."""
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(pickled(tmp_path / "x.pkl", content, protocol))


def test_cut_off(tmp_path: Path) -> None:
    """A file that ends early is said to be broken, wherever it ends."""
    path = pickled(tmp_path / "x.pkl", zoo())
    whole = path.read_bytes()
    for end in range(2, len(whole), len(whole) // 40):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            opened(path)


def test_numbers_among_the_arrays(tmp_path: Path, soup: Soup) -> None:
    """A plain number that differs is the best ingredient's, with a warning; a counter is none of the network's."""
    for seed in range(2):
        content = {**arrays(seed), "temperature": 0.5 + seed, "iteration": seed}
        pickled(tmp_path / f"runs/{seed}/model.pkl", content)
    ran = soup("uniform", "--ckpts", f"{tmp_path}/runs/*/model.pkl", "--out", str(tmp_path / "soup"))
    assert ran.code == 0, ran.stderr
    assert "in the file: temperature (0.5 | 1.5)" in ran.stderr and "iteration" not in ran.stderr
