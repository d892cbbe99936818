"""A soup in the folder of its ingredients: the old one is left out of the new one, others are named."""

from __future__ import annotations

import json
import os
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.earlier_soups import soups_among
from soupcli.checkpoints.open import open_checkpoint

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


@pytest.mark.parametrize("name", ["mine", "mine.safetensors"])
def test_ingredients_in_the_folder_of_the_old_soup(runs: Path, soup: Callable[..., Ran], name: str) -> None:
    """Only what the old report lists is the old soup. An ingredient that lies beside it is refused, not left out."""
    assert soup("uniform", "--ckpts", "runs/a", "runs/b", "--out", "soup").code == 0
    weights = runs.parent / ("soup/mine/model.safetensors" if name == "mine" else f"soup/{name}")
    weights.parent.mkdir(exist_ok=True)
    save_file({"w": torch.full((2,), 7.0)}, weights)
    ran = soup("uniform", "--ckpts", "runs/*/", f"soup/{name}", "--out", "soup", "--force")
    assert (ran.code, ran.stderr.partition("\n")[0]) == (2, f"soup: holds the ingredient soup/{name}")


@pytest.mark.parametrize("words", [["runs/*/"], ["runs/soup", "runs/c", "runs/b/model.safetensors", "runs/a"]])
def test_soups_of_the_same_ingredients(runs: Path, soup: Callable[..., Ran], words: list[str]) -> None:
    """A soup whose members are all among the ingredients is left out, which is said, without its report too."""
    assert soup("uniform", "--ckpts", "runs/a", "runs/b", "runs/c", "--out", "plain").code == 0
    assert soup("uniform", "--ckpts", "runs/a", "runs/b", "--out", "runs/soup").code == 0
    assert soup("uniform", "--ckpts", "runs/soup", "runs/c", "--out", "runs/third").code == 0
    for out in ("one", "two"):
        ran = soup("uniform", "--ckpts", *words, "runs/third", "--out", out)
        assert ran.code == 0
        assert "runs/soup is a soup of runs/a, runs/b" in ran.stderr.replace("/model.safetensors", "")
        assert "left out, as they would count twice (soup mix --weights takes it all the same)" in ran.stderr
        assert "runs/third is a soup of runs/c, runs/soup" in ran.stderr
        assert (runs / f"../{out}/model.safetensors").read_bytes() == (runs / "../plain/model.safetensors").read_bytes()
        (runs / "soup/soup.json").unlink(missing_ok=True)


def test_greedy_that_kept_one(runs: Path, soup: Callable[..., Ran]) -> None:
    """Of a soup of one ingredient and this ingredient the soup is left out, wherever it lies."""
    assert soup("mix", "--ckpts", "runs/b", "--weights", "1", "--out", "a_soup").code == 0
    ran = soup("uniform", "--ckpts", "a_soup", "runs/*/", "--out", "soup")
    assert ran.code == 0
    assert "a_soup holds the same weights as runs/b: counted once" in ran.stderr
    assert json.loads((runs / "../soup/soup.json").read_text())["soup"]["members"] == ["runs/a", "runs/b", "runs/c"]


def test_other_soups(runs: Path, soup: Callable[..., Ran]) -> None:
    """Soups of others, or that the user gives a weight, are ingredients. That members count twice is said."""
    for name, members in {"ab": ("a", "b"), "bc": ("b", "c")}.items():
        assert soup("uniform", "--ckpts", *(f"runs/{one}" for one in members), "--out", f"soups/{name}").code == 0
    ran = soup("uniform", "--ckpts", "soups/*/", "--out", "of_soups")
    assert ran.code == 0
    assert "left out" not in ran.stderr
    ran = soup("uniform", "--ckpts", "soups/ab", "runs/a", "runs/c", "--out", "part")
    assert "soups/ab is a soup of runs/a: they count more than others" in ran.stderr
    words = ("--ckpts", "runs/a", "runs/b", "soups/ab", "--weights", "2,1,1", "--out")
    assert soup("mix", *words, "mixed").code == 0
    assert len(json.loads((runs / "../mixed/soup.json").read_text())["soup"]["members"]) == 3
    save_file({"w": torch.full((2,), 7.0)}, runs / "a/model.safetensors")
    ran = soup("uniform", "--ckpts", "runs/*/", "soups/ab", "--out", "trained_on")
    assert "soups/ab is a soup of runs/a, runs/b: they count more than others" in ran.stderr
    (runs / "../soups/ab/soup.json").unlink()
    ran = soup("uniform", "--ckpts", "runs/*/", "soups/ab", "--out", "without_a_report")
    assert "soups/ab is a soup of 2 checkpoints, and no soup.json says which" in ran.stderr


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


def test_a_report_of_very_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the members that a stranger's report lists, no more are looked for than a soup has."""
    monkeypatch.setattr("soupcli.checkpoints.earlier_soups.MOST_MEMBERS", 5)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file({"weight": torch.ones(4)}, tmp_path / name / "model.safetensors")
    members = [str(tmp_path / "b"), *map(str, range(1000))]
    (tmp_path / "a/soup.json").write_text(json.dumps({"soup": {"members": members}}))
    opened = [open_checkpoint(tmp_path / name) for name in ("a", "b")]
    looked_for: list[str] = []
    whole = os.path.realpath

    def counted(path: Any) -> Any:
        looked_for.append(str(path))
        return whole(path)

    monkeypatch.setattr(os.path, "realpath", counted)
    [line] = soups_among(opened)
    assert f"is a soup of {tmp_path / 'b'}" in line and len(looked_for) < 20
