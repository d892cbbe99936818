"""`--scores FILE`: published results rank, with no forward pass, and `soup greedy` begins from their best."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ran

Soup = Callable[..., Ran]
# Lines as the authors publish them (individual_model_results.jsonl).
PUBLISHED = {
    "0": {"ImageNet2p": 0.7808076923076923, "ImageNet": 0.75574, "ImageNetV2": 0.6409},
    "1": {"ImageNet2p": 0.7984615384615384, "ImageNet": 0.77266, "ImageNetV2": 0.6579},
    "2": {"ImageNet2p": 0.7942692307692307, "ImageNet": 0.76214, "ImageNetV2": 0.6352},
    "3": {"ImageNet2p": 0.8137307692307693, "ImageNet": 0.78696, "ImageNetV2": 0.6698},
    "4": {"ImageNet2p": 0.7852692307692307, "ImageNet": 0.75918, "ImageNetV2": 0.6476},
}


def publish(rows: dict[str, dict[str, float]], file: str = "results.jsonl") -> None:
    lines = [json.dumps({"model_name": name, **row}) for name, row in rows.items()]
    Path(file).write_text("".join(f"{line}\n" for line in lines))


def report_of(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def test_rank(family: Path, soup: Soup) -> None:
    """Best first by the first column; every column stands in the report; nothing is evaluated, no network is needed."""
    publish(PUBLISHED)
    Path("soup.yaml").unlink()
    report = report_of(soup("rank", "--ckpts", "runs/*/", "--scores", "results.jsonl", "--json"))
    order = [ingredient["path"] for ingredient in report["ingredients"]]
    assert order == ["runs/3", "runs/1", "runs/2", "runs/4", "runs/0"]
    assert report["best"]["scores"]["ImageNetV2"]["accuracy"] == {"value": 0.6698, "stderr": None, "n": None}
    assert report["sets"] == ["ImageNet2p", "ImageNet", "ImageNetV2"] and report["selecting_set"] == "ImageNet2p"
    assert report["scores_file"] == "results.jsonl" and report["cost"]["examples"] == 0
    ran = soup("rank", "--ckpts", "runs/*/", "--scores", "results.jsonl", "--val", "imagenet-v2", "--quiet")
    assert ran.stdout.split() == ["runs/3", "runs/1", "runs/4", "runs/0", "runs/2"]
    table = soup("rank", "--ckpts", "runs/*/", "--scores", "results.jsonl").stdout.splitlines()
    heads = [word for name in ("ImageNet2p", "ImageNet", "ImageNetV2") for word in (name, "accuracy", "↑")]
    assert table[0].split() == ["checkpoint", *heads]
    assert table[1].split() == ["runs/3", "81.37%", "78.70%", "66.98%"]


TABLES = {
    "results.csv": "\ufeffName,ImageNet 2p,ImageNetV2\r\n"
    + "\r\n".join(f'"{name}",{row["ImageNet2p"] * 100}%,{row["ImageNetV2"]}' for name, row in PUBLISHED.items()),
    "results.tsv": "model_name\tImageNet2p\tImageNetV2\tnote\n"
    + "\n".join(f"runs/{name}\t{row['ImageNet2p']}\t{row['ImageNetV2']}\tgood" for name, row in PUBLISHED.items()),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str, family: Path, soup: Soup) -> None:
    """A csv of a spreadsheet (its mark, per cents, line ends) and a tsv rank as the jsonl of the same scores does."""
    Path(name).write_text(TABLES[name])
    ran = soup("rank", "--ckpts", "runs/*/", "--scores", name, "--val", "imagenet-2p", "--json")
    ingredients = report_of(ran)["ingredients"]
    assert [one["path"] for one in ingredients] == ["runs/3", "runs/1", "runs/2", "runs/4", "runs/0"]
    [scores] = ingredients[0]["scores"].values()
    assert scores["accuracy"]["value"] == pytest.approx(PUBLISHED["3"]["ImageNet2p"], abs=1e-15)


def test_greedy(family: Path, soup: Soup) -> None:
    """Candidates come in the file's order; the start is measured; decisions are by what is measured."""
    publish({name: {"val": row["ImageNetV2"]} for name, row in PUBLISHED.items()})
    report = report_of(
        soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--scores", "results.jsonl", "--json")
    )
    assert [step["candidate"] for step in report["steps"]] == ["runs/3", "runs/1", "runs/4", "runs/0", "runs/2"]
    assert report["ingredients"][0]["scores"]["val"]["accuracy"]["value"] == 0.6698
    ranked = report_of(soup("rank", "--ckpts", "runs/*/", "--val", "val", "test", "--json"))
    measured = {ingredient["path"]: ingredient["scores"] for ingredient in ranked["ingredients"]}
    assert report["steps"][0]["score"] == measured["runs/3"]["val"]["accuracy"]["value"] != 0.6698
    assert report["best"] == {"path": "runs/3", "scores": measured["runs/3"]}
    assert report["scores_file"] == "results.jsonl"
    assert sum(step["examples"] for step in report["steps"]) <= 5 * 200


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({k: v for k, v in PUBLISHED.items() if k != "2"}, "results.jsonl: has no line for runs/2"),
        ({**PUBLISHED, "1": {"ImageNet2p": 79.8, "ImageNet": 0.7, "ImageNetV2": 0.6}}, "accuracy is a fraction of 1"),
        ({**PUBLISHED, "1": {}}, "has no score that all of its 5 models have"),
        ({}, "has no score that all of its 0 models have"),
    ],
)
def test_models_that_are_missing(family: Path, soup: Soup, rows: Any, message: str) -> None:
    """A checkpoint without a line and what is no score: errors that name them."""
    publish(rows)
    ran = soup("rank", "--ckpts", "runs/*/", "--scores", "results.jsonl")
    assert (ran.code, message in ran.stderr) == (2, True), ran.stderr


def test_a_part_of_the_models(family: Path, soup: Soup) -> None:
    """Scores of more models than there are checkpoints rank those that are there; the others are named."""
    publish({**PUBLISHED, "5": PUBLISHED["0"], "6": PUBLISHED["0"]})
    ran = soup("rank", "--ckpts", "runs/*/", "--scores", "results.jsonl", "--quiet")
    assert ran.code == 0 and len(ran.stdout.splitlines()) == 5
    assert "results.jsonl: 2 of its 7 models are not among the checkpoints: 5, 6" in ran.stderr


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("csv", "id,a\n0,1\n", "results.csv: row 1: names no model"),
        ("csv", "model,a\n0,1\n0,1\n", "results.csv: row 2: '0' has a line already"),
        ("csv", "model,a\n0,1\n1,1,2\n", "results.csv:3: has 3 fields, the header has 2"),
        ("csv", "model,a\n0,\n1,n/a\n", "has no score that all of its 2 models have"),
        ("csv", "", "results.csv: has no rows"),
        ("jsonl", "[1]\n", "results.jsonl:1: names no model"),
        ("jsonl", '{"model_name": "0", "a": 1}\n{"model_name": "0"}\n', "results.jsonl:2: '0' has a line already"),
        ("jsonl", '\n{"model_name": \n', "results.jsonl:2: is not JSON"),
    ],
)
def test_files_that_are_wrong(family: Path, soup: Soup, file: str, text: str, message: str) -> None:
    """No names, a name twice, a row of another length, no numbers, no JSON: errors with the place."""
    Path(f"results.{file}").write_text(text)
    ran = soup("rank", "--ckpts", "runs/*/", "--scores", f"results.{file}")
    assert (ran.code, message in ran.stderr) == (2, True), ran.stderr


def test_column_that_is_missing(family: Path, soup: Soup) -> None:
    """A set that the file has no column for is an error that names the columns; so is a file that is not there."""
    publish(PUBLISHED)
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--scores", "results.jsonl")
    assert (ran.code, "has no column 'val'" in ran.stderr, "it has ImageNet2p" in ran.stderr) == (2, True, True)
    ran = soup("rank", "--ckpts", "runs/*/", "--scores", "nowhere.jsonl")
    assert (ran.code, "nowhere.jsonl: No such file" in ran.stderr) == (2, True)
    ran = soup("rank", "--ckpts", "runs/*/", "--scores", "results.jsonl", "--save-logits", "x")
    assert (ran.code, "no logits for --save-logits" in ran.stderr) == (2, True)
