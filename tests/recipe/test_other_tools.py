"""A file of another tool in the place of a recipe is told by its keys; a recipe of ours is never taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from soupcli.errors import RecipeError
from soupcli.recipe.other_tools import TOOLS
from soupcli.recipe.precedence import load_recipe
from tests.conftest import Ran

FILES = {  # as the tools' own pages give them
    "mergekit": """\
slices:
  - sources:
      - {model: mistral-ft, layer_range: [0, 32]}
      - {model: Mistral-7B, layer_range: [0, 32]}
merge_method: slerp
base_model: Mistral-7B
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - value: 0.5
dtype: bfloat16
""",
    "soup-cli": """\
base: meta-llama/Llama-3.1-8B-Instruct
task: sft
data: {train: ./data/train.jsonl, format: alpaca, val_split: 0.1}
training: {epochs: 3, lr: 2e-5, lora: {r: 64, alpha: 16}}
output: ./output
""",
    "conda": "name: soup\nchannels: [conda-forge]\ndependencies: [python=3.12, {pip: [torch]}]\n",
    "Docker Compose": """\
x-common: &common
  restart: always
services:
  soup:
    <<: *common
    image: soup
""",
    "Ultralytics": "path: ../datasets/coco8\ntrain: images/train\nval: images/val\nnames: {0: person, 1: bicycle}\n",
    "GitHub Actions": "on: [push]\njobs: {soup: {runs-on: ubuntu-latest}}\n",
}


@pytest.mark.parametrize("tool", FILES)
def test_named(tool: str, tmp_path: Path) -> None:
    """The error is one line with the file, the tool and the keys that told; the hint says how to get a recipe."""
    file = tmp_path / "soup.yaml"
    file.write_text(FILES[tool])
    with pytest.raises(RecipeError) as raised:
        load_recipe(file)
    said = str(raised.value)
    assert said.startswith(f"{file}: is a file of {tool} (it has ") and said.endswith("), not a recipe")
    assert "\n" not in said and "--recipe recipe.yaml" in str(raised.value.hint)


def test_recipes_are_ours(tmp_path: Path) -> None:
    """A recipe with a mistake, even with a key of another tool beside its own, is told its mistakes."""
    file = tmp_path / "soup.yaml"
    for key in sorted({key for tool in TOOLS for key in tool.keys} - {"base"}):
        file.write_text(f"val: {{test: {{images: data}}}}\ngreedy: {{min_delta: 0}}\n{key}: 1\n")
        with pytest.raises(RecipeError, match="unknown key"):
            load_recipe(file)
    file.write_text("base: start\n")
    assert load_recipe(file).base == tmp_path / "start"


def test_the_way_out(family: Path, soup: Callable[..., Ran]) -> None:
    """In a folder with another tool's soup.yaml, what the hint says leads to a soup."""
    Path("soup.yaml").write_text(FILES["soup-cli"])
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 2 and "soup.yaml: is a file of soup-cli" in ran.stderr
    assert soup("init", "--out", "recipe.yaml").code == 0
    assert soup("uniform", "--ckpts", "runs/*/", "--recipe", "recipe.yaml").code == 0
