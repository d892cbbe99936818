"""A soup in the folder of its ingredients: the old one is left out of the new one, others are named."""

from __future__ import annotations

import json
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
