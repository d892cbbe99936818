"""Every recipe of configs/ is read, and says at its head what it needs; the one of the digits runs as it says."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soupcli.demo import digits
from soupcli.recipe.precedence import load_recipe
from tests.helpers.config_runs import commands
from tests.helpers.output_words import unknown_words

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
OWN_DATA = {"digits", "imagenet-shifts"}  # a demo, and sets for any network
SYSTEMS = {"clip-vit-b32-imagenet", "align-imagenet", "vit-g14-imagenet", "basic-l-imagenet", "bert-glue", "t5-glue"}
SYSTEMS |= {"zero-shot-transfer", "llm-anneal"}  # each run in tests/configs/


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe_is_valid_and_says_how_to_run_it(file: Path) -> None:
    """A recipe has no key that the program does not know, and its head states command, needs and expected score."""
    recipe = load_recipe(file)
    assert recipe.model is not None
    assert recipe.val
    head = "\n".join(line for line in file.read_text("utf-8").splitlines() if line.startswith("#"))
    assert f"--recipe configs/{file.name}" in head
    assert "Needs:" in head
    assert "Expect" in head
    shown = [shlex.join(["soup", *words]) for words in commands(file.stem)]
    assert shown
    assert [problem for command in shown for problem in unknown_words(command)] == []
    if file.stem not in OWN_DATA:
        assert all(word in head for word in ("Data:", "Hardware:", "Time, an estimate:"))
        assert "not measured" in head.partition("Time,")[2].partition("Expect")[0].lower()
        assert re.search(r"^# Expect .*(Table \d|appendix|Fine-tuning)", head, re.MULTILINE), (
            "a figure names its source"
        )


def test_every_system_has_its_recipe() -> None:
    """The systems that model soups were shown on, by name."""
    assert {file.stem for file in RECIPES} >= SYSTEMS


def test_digits_recipe_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soup: Callable[..., Any]) -> None:
    """The command at the head of configs/digits.yaml makes a soup, on ingredients of a smaller demo."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    digits.make(tmp_path / "demo-digits", size=digits.DigitsSize(runs=3, epochs=(1, 2), pretraining_epochs=2))
    monkeypatch.chdir(tmp_path)
    head = (CONFIGS / "digits.yaml").read_text("utf-8")
    command = re.search(r"^#   soup (greedy .*)$", head, re.MULTILINE)
    assert command is not None
    ran = soup(*shlex.split(command[1]))
    assert ran.code == 0, ran.stderr
    assert (tmp_path / "demo-digits/soup/model.safetensors").is_file()
