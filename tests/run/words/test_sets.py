"""Words after --val: names, paths, columns of a text file, and what is said of words that are none of these."""

from __future__ import annotations

from pathlib import Path

import pytest

from soupcli.errors import UsageError
from soupcli.recipe.precedence import load_recipe
from soupcli.recipe.sets import TextSet
from soupcli.run.words.sets import choose_sets


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("dev.csv").write_text("idx,sentence,label\n1,good,pos\n")
    Path("data.yaml").write_text("train: images\n")
    Path("data/val/cat").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "inputs", "label"),
    [
        ("dev.csv:sentence:label", ["sentence"], "label"),
        ("dev.csv:idx,sentence:label", ["idx", "sentence"], "label"),
        ("dev.csv:sentence:label,idx", ["sentence"], ["label", "idx"]),
        ("odd.csv:text:a,b", ["text"], "a,b"),
    ],
)
def test_columns(word: str, inputs: list[str], label: str | list[str]) -> None:
    """A text file may be followed by its columns: one or two inputs, then the label, or several of 0 and 1."""
    Path("odd.csv").write_text('text,"a,b"\ngood,1\n')
    [(name, spec)] = choose_sets([word], load_recipe(None)).items()
    assert name == word and isinstance(spec, TextSet)
    assert (spec.input, spec.label) == (inputs, label)


def test_input_as_a_word() -> None:
    """`input: sentence` is as good as a list of one."""
    recipe = load_recipe(None, settings={"val.dev": "{text: dev.csv, input: sentence}"})
    spec = recipe.val["dev"]
    assert isinstance(spec, TextSet) and spec.input == ["sentence"]


def test_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the home, after --val and in a recipe."""
    monkeypatch.setenv("HOME", str(here))
    recipe = load_recipe(None, settings={"val.x": "{text: ~/dev.csv}", "model": "{python: '~/net.py:build'}"})
    spec = recipe.val["x"]
    assert isinstance(spec, TextSet) and spec.text == here / "dev.csv"
    assert recipe.model is not None and recipe.model.code == [f"{here}/net.py:build"]
    assert "~/data/val" in choose_sets(["~/data/val"], recipe)


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("dev.tsv", "no such file or folder", "did you mean 'dev.csv'?"),
        ("data/vall", "no such file or folder", "data holds val, did you mean 'val'?"),
        ("./nothing", "no such file or folder", "holds"),
        ("imdb", "looks like a dataset of the Hub", "load_dataset('imdb', split='test').to_json('imdb.jsonl')"),
        ("stanfordnlp/sst2", "looks like a dataset of the Hub", "--val stanfordnlp_sst2.jsonl:INPUT:LABEL"),
        (
            "data.yaml",
            "a set is a folder of class folders",
            "docs/detection.md has one that runs YOLO's own validation",
        ),
        ("dev.csv:sentence", "expected FILE:INPUT:LABEL", "its columns are idx, sentence, label"),
        ("dev.csv,data/val", "no such set", "--val dev.csv data/val"),
        ("unknown", "neither a set of the recipe nor a path", "the recipe has no val: sets"),
    ],
)
def test_neither(word: str, message: str, hint: str) -> None:
    """An error says what the word looks like, and the words that would do."""
    with pytest.raises(UsageError, match=message) as refused:
        choose_sets([word], load_recipe(None))
    assert hint in str(refused.value.hint)
