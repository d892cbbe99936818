"""A soup in the folder of its ingredients: the old one is left out of the new one, others are named."""

from __future__ import annotations

import json
import pickle
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Ran


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs in one folder, and the working folder above it."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("abc"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        save_file({"w": torch.full((2,), float(number**2))}, tmp_path / "runs" / name / "model.safetensors")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    "words", [["runs/*/"], ["runs/*/model.safetensors"], ["runs/a", "runs/b", "runs/soup", "runs/c"]]
)
def test_the_old_soup(runs: Path, soup: Callable[..., Ran], words: list[str]) -> None:
    """The soup that is replaced is no ingredient, however it was named: both soups have the same bytes."""
    assert soup("uniform", "--ckpts", "runs/a", "runs/b", "runs/c", "--out", "runs/soup").code == 0
    before = (runs / "soup/model.safetensors").read_bytes()
    ran = soup("uniform", "--ckpts", *words, "--out", "runs/soup", "--force")
    assert ran.code == 0
    assert "is left out: it is the old soup of --out runs/soup" in ran.stderr
    members = json.loads((runs / "soup/soup.json").read_text())["soup"]["members"]
    assert len(members) == 3
    assert (runs / "soup/model.safetensors").read_bytes() == before


def test_other_soups(runs: Path, soup: Callable[..., Ran]) -> None:
    """Another soup of the ingredients is one of them, and that is said, without its report too."""
    assert soup("uniform", "--ckpts", "runs/a", "runs/b", "--out", "runs/soup").code == 0
    ran = soup("uniform", "--ckpts", "runs/*/", "--out", "other")
    assert ran.code == 0
    assert "runs/soup is a soup of runs/a, runs/b: they count more than others" in ran.stderr
    for number, content in enumerate(("{", None)):
        (runs / "soup/soup.json").write_text(content) if content else (runs / "soup/soup.json").unlink()
        again = soup("uniform", "--ckpts", "runs/*/", "--out", f"again{number}").stderr
        assert "runs/soup is a soup of 2 checkpoints, and no soup.json says which" in again


def save_pickle(state: dict[str, torch.Tensor], file: Path) -> None:
    """As detectron2's model zoo has it."""
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    file.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=4))


def save_old(state: dict[str, torch.Tensor], file: Path) -> None:
    """As torch wrote it before version 1.6."""
    torch.save({"model": state, "epoch": 3}, file, _use_new_zipfile_serialization=False)


def save_archive(state: dict[str, torch.Tensor], file: Path) -> None:
    """As torch writes it, with an optimizer that the soup leaves out."""
    torch.save({"model": state, "optimizer": {"state": {0: {"x": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}}, file)


def save_plain(state: dict[str, torch.Tensor], file: Path) -> None:
    """A state dict: its file is copied as it is."""
    torch.save(state, file)


def unpickled(file: Path) -> object:
    """As its library reads it."""
    return pickle.loads(file.read_bytes())


@pytest.mark.parametrize(
    ("save", "name", "load"),
    [
        (save_archive, "last.pt", partial(torch.load, weights_only=True)),
        (save_plain, "last.pt", partial(torch.load, weights_only=True, mmap=True)),
        (save_old, "last.pt", partial(torch.load, weights_only=True)),
        (save_pickle, "model_final.pkl", unpickled),
    ],
    ids=["archive", "plain", "before-1.6", "pickle"],
)
def test_soups_in_their_own_format(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    soup: Callable[..., Ran],
    save: Callable[..., None],
    name: str,
    load: Callable[[Path], object],
) -> None:
    """A soup without its report is told by its mark, also a soup of soups; its library opens it as the ingredients."""
    monkeypatch.chdir(tmp_path)
    for number, run in enumerate("abc"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        save({"w": torch.full((2,), float(number**2))}, tmp_path / "runs" / run / name)
    words = ("--format", "same", "--out")
    assert soup("uniform", "--ckpts", "runs/a", "runs/b", *words, "soups/one").code == 0
    assert soup("uniform", "--ckpts", "runs/a", "runs/c", *words, "soups/two").code == 0
    assert soup("uniform", "--ckpts", "soups/*/", *words, "runs/soup").code == 0
    assert soup("verify", "runs/soup", "--rebuild").code == 0
    found, written = load(tmp_path / "runs/soup" / name), load(tmp_path / "runs/a" / name)
    assert type(found) is type(written)
    assert (tmp_path / "runs/soup" / name).read_bytes().count(b'"members"') == 1
    (tmp_path / "runs/soup/soup.json").unlink()
    said = soup("uniform", "--ckpts", "runs/*/", "--dry-run").stderr
    assert "runs/soup is a soup of 2 checkpoints, and no soup.json says which" in said


def test_evaluated_beside_its_ingredients(runs: Path, soup: Callable[..., Ran]) -> None:
    """Where nothing is written to it, a soup is a checkpoint like others."""
    assert soup("uniform", "--ckpts", "runs/*/", "--out", "soup").code == 0
    looked = soup("inspect", "--ckpts", "soup", "runs/*/", "--json")
    assert len(json.loads(looked.stdout)["inspection"]["checkpoints"]) == 4


def test_means_of_espnet(tmp_path: Path, soup: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """ESPnet's mean of its best epochs beside these epochs is named: they would count twice."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("1epoch.pth", "2epoch.pth", "valid.acc.ave_2best.pth")):
        torch.save({"w": torch.full((2,), float(number**2))}, name)
    said = "valid.acc.ave_2best.pth is ESPnet's mean of its best epochs"
    assert said in soup("uniform", "--ckpts", "*.pth", "--dry-run").stderr
    assert said not in soup("uniform", "--ckpts", "*epoch.pth", "--dry-run").stderr
