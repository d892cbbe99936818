"""The model card says what the report says, in the form that the Hub reads, whatever names and texts are in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from soupcli.output.card import BELOW, CardSources, ReadMe, model_card
from soupcli.report.report import Report
from tests.conftest import Ran
from tests.helpers.report_toys import greedy

Soup = Callable[..., Ran]


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_card_of_a_soup(family: Path, soup: Soup) -> None:
    """It lies beside the weights, is in the report, the same each time, and is checked and made again by verify."""
    words = ["greedy", "--ckpts", "runs/*/", "--val", "val", "test"]
    report = json.loads(soup(*words, "--json").stdout)
    text = Path("soup/README.md").read_text()
    assert "README.md" in report["soup"]["files"] and "README.md" in report["soup"]["file_hashes"]
    found = front(text)
    assert found["tags"] == ["model-soup", "merge"]
    [result] = found["model-index"]
    assert [one["dataset"]["name"] for one in result["results"]] == ["val", "test"]
    value = report["soup"]["scores"]["test"]["accuracy"]["value"]
    assert result["results"][1]["metrics"] == [{"type": "accuracy", "name": "accuracy", "value": value}]
    assert all(f"| {member} | " in text for member in report["soup"]["members"])
    assert soup("verify", "soup", "--rebuild").code == 0
    assert soup(*words, "--force", "--quiet").code == 0
    assert Path("soup/README.md").read_text() == text
    assert soup("mix", "soup/soup.json", "--out", "again", "--quiet").code == 0
    assert front(Path("again/README.md").read_text())["tags"] == ["model-soup", "merge"]
    assert soup(*words, "--out", "plain", "--no-card", "--quiet").code == 0
    assert not Path("plain/README.md").exists()
    assert soup("verify", "plain", "--rebuild").code == 0


def test_readmes_of_the_ingredients(family: Path, soup: Soup) -> None:
    """Licence and base of the ingredients are taken over if all agree; the text of the kept one stands below, once."""
    for number in range(3):
        matter = {"license": "mit", "base_model": ["org/base", "org/base"], "language": "de", "tags": ["mine"]}
        text = f"---\n{yaml.safe_dump(matter)}---\n\n# Mine\n\nwords {number}\n"
        Path(f"runs/{number}/README.md").write_text(text)
    words = ["uniform", "--ckpts", "runs/0", "runs/1", "runs/2", "--quiet"]
    assert soup(*words).code == 0
    text = Path("soup/README.md").read_text()
    found = front(text)
    assert (found["license"], found["base_model"]) == ("mit", ["org/base"])
    assert (found["base_model_relation"], found["language"]) == ("merge", "de")
    assert text.rstrip().endswith(f"{BELOW}\n\n# Mine\n\nwords 0")
    assert soup("uniform", "--ckpts", "soup", "--out", "again", "--quiet").code == 0
    again = Path("again/README.md").read_text()
    assert again.count(BELOW) == 1 and again.count("# A model soup") == 1 and again.count("words 0") == 1
    Path("runs/2/README.md").write_text("---\nlicense: other\n---\n")
    assert soup(*words, "--force").code == 0
    assert "license" not in front(Path("soup/README.md").read_text())
    for number in range(3):
        Path(f"runs/{number}/README.md").write_text("---\nlicense: [mit, other]\n---\n")  # the Hub knows no lists
    assert soup(*words, "--force").code == 0
    assert "license" not in front(Path("soup/README.md").read_text())


def test_hostile_words() -> None:
    """Names with Markdown, HTML, YAML and control characters in them stay names."""
    bad = "a|b`\n# c <script> ![x](y) \x1b[31m --- : - {{}}"
    document = greedy([bad, "runs/1"])
    document["sets"] = [*document["sets"], bad]
    document["soup"]["scores"] = {bad: {"accuracy": {"value": 0.5, "stderr": None, "n": 3}}}
    document["recipe"] = {"base": bad, "val": {bad: {"images": "```\n# x"}}}
    text = model_card(Report.model_validate(document), CardSources())
    matter = front(text)
    assert matter["model-index"][0]["results"][0]["task"]["type"] == "image-classification"
    body = text.split("---\n", 2)[2]
    assert "<script>" not in body.partition("## How it was made")[0]
    assert "\x1b" not in text and not any(line.startswith("# c") for line in text.splitlines())
    assert "````" in body


@pytest.mark.parametrize(
    "text", ["", "---\n", "---\n[\n---\nx", "---\n&a [*a]\n---\n", "---\n- 1\n---\nrest", "\ufeff---"]
)
def test_odd_readmes(text: str) -> None:
    """Whatever a README begins with, it is front matter that can be read, or text."""
    found = ReadMe.of(text)
    assert isinstance(found.front, dict) and isinstance(found.text, str)


ALIASES = "x0: &x0 [a, a]\n" + "".join(f"x{at}: &x{at} [*x{at - 1}, *x{at - 1}]\n" for at in range(1, 40))


@pytest.mark.parametrize(
    "value",
    ["license: *x39", "base_model: *x39", "language: {a: *x39}", "datasets: [[a]]", f"language: {'[' * 9_000}"],
)
def test_values_of_a_stranger(value: str) -> None:
    """Words and lists of words are taken over; aliases that stand for 2 ** 39 values, and nests, are not."""
    assert ReadMe.of(f"---\n{ALIASES}{value}\n---\n").front == {}
    found = ReadMe.of(f"---\nlicense: mit\nlanguage:\n- no\npipeline_tag: 0x{'f' * 6_000}\n{ALIASES}---\n").front
    assert found["license"] == "mit" and found["language"] == ["no"] and isinstance(found["pipeline_tag"], str)


def test_letters_that_are_no_text() -> None:
    """Versions are names, too; invisible letters and lone surrogates of the recipe are YAML's own escapes."""
    document = greedy(["runs/0", "runs/1"])
    document["versions"]["torch"] = "<b>\n# x\x1b[2J"
    document["recipe"] = {"base": "a\u2028\x9b\u202e\ud800b"}
    text = model_card(Report.model_validate(document), CardSources())
    assert "<b>" not in text and not any(line.startswith("# x") for line in text.splitlines())
    assert all(letter.isprintable() for letter in text.replace("\n", ""))
    recipe = text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(recipe.replace(r"\uD800", "?")) == {"base": "a\u2028\x9b\u202e?b"}
