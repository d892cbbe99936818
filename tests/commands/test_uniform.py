"""`soup uniform`: the exact mean, its dtype and shards, the folder that comes out, and what it refuses to replace."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.conftest import Ran
from tests.helpers import greedy_reference as reference

Soup = Callable[..., Ran]


def states() -> list[reference.State]:
    return [load_file(f"runs/{number}/model.safetensors") for number in range(5)]


def names() -> list[str]:
    """What lies in the working folder, hidden things too."""
    return sorted(entry.name for entry in Path().iterdir())


def cook(soup: Soup, *words: str) -> dict[str, Any]:
    ran = soup("uniform", "--ckpts", "runs/*/", "--json", *words)
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def test_exact_mean(family: Path, soup: Soup) -> None:
    """Without model or validation set the mean of all is written, and the report says of what it is made."""
    Path("soup.yaml").unlink()
    report = cook(soup)
    written = load_file("soup/model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in reference.mean(states()).items())
    assert report["soup"]["members"] == [f"runs/{number}" for number in range(5)]
    assert report["soup"]["weights"] == [0.2] * 5
    assert (report["soup"]["scores"], report["best"], report["steps"]) == ({}, None, [])
    assert json.loads(Path("soup/soup.json").read_text()) == report


def test_scores(family: Path, soup: Soup) -> None:
    """With sets the mean is scored on each of them, as `soup eval` scores the folder that was written."""
    report = cook(soup, "--val", "val", "test")
    ran = soup("eval", "--ckpts", "soup", "--val", "val", "test", "--json", "--fresh")
    assert json.loads(ran.stdout)["best"] == {"path": "soup", "scores": report["soup"]["scores"]}


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_dtype(family: Path, soup: Soup, name: str) -> None:
    """--dtype rounds the exact mean once to that dtype; the report counts tensors by dtype."""
    report = cook(soup, "--dtype", name)
    wanted = getattr(torch, name)
    mean = reference.mean([{key: tensor.double() for key, tensor in state.items()} for state in states()])
    written = load_file("soup/model.safetensors")
    assert all(torch.equal(tensor, mean[key].to(wanted)) for key, tensor in written.items())
    assert report["soup"]["dtypes"] == {name: 4}


def test_dtype_that_cannot_hold_the_mean(family: Path, soup: Soup) -> None:
    """A mean beyond a dtype is an error that names the tensor, and no soup is left."""
    for number, state in enumerate(states()):
        save_file({**state, "0.bias": torch.full((16,), 1e6)}, f"runs/{number}/model.safetensors")
    ran = soup("uniform", "--ckpts", "runs/*/", "--dtype", "float16")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("tensor '0.bias': ") and "torch.float16" in ran.stderr
    assert "\n\nhint: choose a wider --dtype" in ran.stderr
    assert not Path("soup").exists()
    assert names() == ["data", "net.py", "runs", "soup.yaml"]


def test_shards(family: Path, soup: Soup) -> None:
    """Past --max-shard-size the weights are shards with an index, as Hugging Face writes them; eval reads them."""
    whole = cook(soup, "--out", "whole", "--val", "val")
    report = cook(soup, "--max-shard-size", "500B", "--val", "val")
    files = sorted(file.name for file in Path("soup").iterdir() if file.name != "README.md")
    shards = files[:-2]
    assert shards == [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    assert files[-2:] == ["model.safetensors.index.json", "soup.json"]
    index = json.loads(Path("soup/model.safetensors.index.json").read_text())
    written: reference.State = {}
    for name, shard in index["weight_map"].items():
        with safe_open(f"soup/{shard}", "pt") as opened:
            written[name] = opened.get_tensor(name)
    assert all(torch.equal(written[name], tensor) for name, tensor in reference.mean(states()).items())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in written.values())
    assert report["soup"]["path"] == "soup/model.safetensors.index.json"
    ran = soup("eval", "--ckpts", "soup", "--val", "val", "--fresh", "--json")
    assert json.loads(ran.stdout)["best"]["scores"] == whole["soup"]["scores"]


def test_existing_soup(family: Path, soup: Soup) -> None:
    """A soup that is there is refused before any work, and replaced by --force; other files in it are carried on."""
    cook(soup)
    before = Path("soup/model.safetensors").read_bytes()
    Path("soup/notes.txt").write_text("mine")
    ran = soup("uniform", "--ckpts", "runs/[01]")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr == "soup: already holds a soup\n\nhint: --force replaces it, --out writes elsewhere\n"
    assert Path("soup/model.safetensors").read_bytes() == before
    assert soup("uniform", "--ckpts", "runs/[01]", "--force", "--quiet").stdout == "soup/model.safetensors\n"
    assert Path("soup/model.safetensors").read_bytes() != before
    assert Path("soup/notes.txt").read_text() == "mine"
    assert names() == ["data", "net.py", "runs", "soup", "soup.yaml"]


@pytest.mark.parametrize("out", ["data", "net.py"])
def test_what_is_no_soup_is_never_replaced(family: Path, soup: Soup, out: str) -> None:
    """--force replaces soups alone: never a folder of other things, never a file."""
    ran = soup("uniform", "--ckpts", "runs/*/", "--out", out, "--force")
    assert ran.code == 2
    assert ran.stderr.startswith(f"{out}: ") and ran.stderr.endswith("hint: choose another --out\n")
    assert Path("data/val.safetensors").exists() and Path("net.py").is_file()


def test_empty_folder_and_new_parents(family: Path, soup: Soup) -> None:
    """An empty folder is no obstacle, and parents are made."""
    Path("here").mkdir()
    assert cook(soup, "-o", "here")["soup"]["path"] == "here/model.safetensors"
    assert cook(soup, "-o", "a/b/c")["soup"]["path"] == "a/b/c/model.safetensors"


def test_mode_bits(family: Path, soup: Soup) -> None:
    """Files and folder follow the umask, as every program's do."""
    before = os.umask(0o027)
    try:
        cook(soup)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (Path("soup"), *Path("soup").iterdir())}
    assert modes.pop(Path("soup")) == 0o750
    assert set(modes.values()) == {0o640}


def test_integers_differ(family: Path, soup: Soup) -> None:
    """Integers are not averaged: equal ones pass, of different ones the first ingredient's is taken, and it is said."""
    for number, state in enumerate(states()):
        save_file(
            {**state, "same": torch.tensor([3]), "steps": torch.tensor(number)}, f"runs/{number}/model.safetensors"
        )
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.stderr.endswith("1 integer buffer copied from runs/0, not averaged: steps\n")
    written = load_file("soup/model.safetensors")
    assert (written["same"].tolist(), written["steps"].item()) == ([3], 0)
    assert json.loads(Path("soup/soup.json").read_text())["soup"]["differing"] == ["steps"]


def test_one_ingredient(family: Path, soup: Soup) -> None:
    """The mean of one is itself."""
    assert soup("uniform", "--ckpts", "runs/3", "--quiet").code == 0
    written, ingredient = load_file("soup/model.safetensors"), load_file("runs/3/model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in ingredient.items())


def test_for_people(family: Path, soup: Soup) -> None:
    """Without sets there is no table: the members and the path."""
    ran = soup("uniform", "--ckpts", "runs/[01]")
    assert ran.stdout == "members: runs/0, runs/1\nsoup: soup/model.safetensors\n"
    assert ran.stderr == ""


def test_adapters_without_their_base(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters are mixed where the network that they were trained on is not at hand, beside a recipe with sets too."""
    monkeypatch.chdir(tmp_path)
    Path("soup.yaml").write_text("val: {val: {arrays: val.safetensors}}\n")
    for number in range(2):
        run = Path(f"adapters/{number}")
        run.mkdir(parents=True)
        (run / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
        factors = {"lora_A": torch.randn(2, 6), "lora_B": torch.randn(5, 2)}
        named = {f"base_model.model.proj.{name}.weight": factor for name, factor in factors.items()}
        save_file(named, run / "adapter_model.safetensors")
    ran = soup("uniform", "--ckpts", "adapters/*/", "--quiet")
    assert (ran.code, ran.stdout) == (0, "soup/adapter_model.safetensors\n"), ran.stderr
