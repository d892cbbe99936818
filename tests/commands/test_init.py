"""`soup init` writes a recipe from which the same folder runs, and says what it did not find."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from soupcli.recipe.precedence import load_recipe
from tests.conftest import Ran

Soup = Callable[..., Ran]


def test_runs_from_it(family: Path, soup: Soup) -> None:
    """The recipe found equals in effect the one written by hand: the same ranking on the same sets."""
    by_hand = json.loads(soup("rank", "--ckpts", "runs/*/", "--val", "val", "test", "--json").stdout)
    Path("soup.yaml").unlink()
    ran = soup("init")
    assert (ran.code, ran.stdout) == (0, "soup.yaml\n")
    assert ran.stderr == "soup.yaml: 5 checkpoints (runs/*/), 2 sets (val, test), model known\n"
    command = Path("soup.yaml").read_text().splitlines()[0]
    assert command == "# soup greedy --ckpts runs/*/ --val val"
    found = json.loads(soup("rank", "--ckpts", "runs/*/", "--val", "val", "test", "--json").stdout)
    assert found["ingredients"] == by_hand["ingredients"]
    assert soup(*command.split()[2:], "--quiet").stdout == "soup/model.safetensors\n"


def test_refuses_to_replace(family: Path, soup: Soup) -> None:
    """A recipe that is there stays; --force replaces one that is as soup init wrote it, and none that was edited."""
    before = Path("soup.yaml").read_text()
    ran = soup("init")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr == "soup.yaml: exists already\n\nhint: --force replaces it, --out writes elsewhere\n"
    assert Path("soup.yaml").read_text() == before
    ran = soup("init", "--force")
    assert (ran.code, Path("soup.yaml").read_text()) == (2, before)
    assert "soup.yaml: exists and is not as soup init wrote it: nothing else is replaced" in ran.stderr
    Path("soup.yaml").unlink()
    assert soup("init").code == 0
    written = Path("soup.yaml").read_text()
    Path("runs/4").rename("gone")
    assert soup("init", "--force").code == 0
    Path("soup.yaml").write_text(written.replace("soup/", "soups/"))
    assert soup("init", "--force").code == 2


def test_empty_folder(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder the recipe is one of comments to fill in; it reads as a recipe all the same."""
    monkeypatch.chdir(tmp_path)
    ran = soup("init")
    assert ran.code == 0
    assert ran.stderr == "soup.yaml: 0 checkpoints, no validation sets, model not known: fill it in\n"
    recipe = load_recipe(Path("soup.yaml"))
    assert (recipe.model, recipe.val, recipe.metric) == (None, {}, "accuracy")
    assert "# model: {timm: " in Path("soup.yaml").read_text()


def test_finds_sets(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures in class folders, sentences and arrays become sets under their names; training data does not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/val/cat").mkdir(parents=True)
    (tmp_path / "data/val/cat/1.jpg").write_bytes(b"")
    (tmp_path / "data/train/cat").mkdir(parents=True)
    (tmp_path / "data/train/cat/1.jpg").write_bytes(b"")
    (tmp_path / "dev set.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "label": 1}\n')
    (tmp_path / "test.csv").write_text("text,label\na,1\n")
    (tmp_path / "other.csv").write_text("price,size\n1,1\n")
    (tmp_path / "broken.jsonl").write_text("{\n")
    save_file({"inputs": torch.zeros(2, 3), "labels": torch.zeros(2)}, tmp_path / "arrays.safetensors")
    soup("init")
    assert yaml.safe_load(Path("soup.yaml").read_text())["val"] == {
        "dev set": {"text": "dev set.jsonl", "input": ["sentence1", "sentence2"], "label": "label"},
        "val": {"images": "data/val"},
        "arrays": {"arrays": "arrays.safetensors"},
        "test": {"text": "test.csv", "input": ["text"], "label": "label"},
    }
    assert list(load_recipe(Path("soup.yaml")).val) == ["dev set", "val", "arrays", "test"]


def test_takes_the_largest_group(family: Path, soup: Soup) -> None:
    """Of several folders of checkpoints the one with most is named; a soup beside them is none of them."""
    soup("uniform", "--ckpts", "runs/*/")
    shutil.copytree("runs", "more")
    shutil.rmtree("more/4")
    Path("soup.yaml").unlink(missing_ok=True)
    assert "5 checkpoints (runs/*/)" in soup("init").stderr


def test_elsewhere(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--out looks into the folder of the recipe that it writes."""
    monkeypatch.chdir(tmp_path)
    ran = soup("init", "--out", "family/new.yaml")
    assert "5 checkpoints (runs/*/), 2 sets (val, test)" in ran.stderr
    assert load_recipe(Path("family/new.yaml")).val == load_recipe(Path("family/soup.yaml")).val
