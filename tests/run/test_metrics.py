"""Several metrics and further kinds of sets from the command line: what is shown, reported and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from tests.conftest import Ran
from tests.helpers import transformers_toys as toys
from tests.helpers.pictures import class_folders
from tests.helpers.shard_toys import sample, write_shard

Soup = Callable[..., Ran]
SEVERAL = ("--set", "metrics=[nll, ece, mcc]")


def test_columns(family: Path, soup: Soup) -> None:
    """Each metric has a column, whose head says the set and which way is better."""
    ran = soup(
        "eval", "--ckpts", "runs/*/", "--val", "val", "test", *SEVERAL, "--set", "val.test.arrays=data/val.safetensors"
    )
    assert ran.code == 0
    head = ran.stdout.splitlines()[0].split()
    metrics = [("accuracy", "↑"), ("nll", "↓"), ("ece", "↓"), ("mcc", "↑")]
    assert head == ["checkpoint", *(word for name in ("val", "test") for of in metrics for word in (name, *of))]
    assert all(line.count("%") == 2 for line in ran.stdout.splitlines()[1:])


@pytest.mark.parametrize("metric", ["nll", "ece", "mcc"])
def test_report(family: Path, soup: Soup, metric: str) -> None:
    """All metrics of the members' own scores and of the soup's stand in the report, one of them orders and selects."""
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--metric", metric, "--json", *SEVERAL)
    report = json.loads(ran.stdout)
    assert report["recipe"]["metrics"] == ["nll", "ece", "mcc"]
    scores = [one["scores"]["val"] for one in report["ingredients"]]
    assert all(sorted(score) == ["ece", "mcc", "nll"] for score in (*scores, report["soup"]["scores"]["val"]))
    values = [score[metric]["value"] for score in scores]
    assert values == sorted(values, reverse=metric == "mcc")
    gain = report["soup"]["scores"]["val"][metric]["value"] - values[0]
    assert gain >= 0 if metric == "mcc" else gain <= 0
    assert scores[0]["ece"]["stderr"] > 0


def test_metric_of_a_set(family: Path, soup: Soup) -> None:
    """A set may have a metric of its own, a mean of two as well; --metric goes over it, the recipe's does not."""
    own = ("--set", "val.val.metric=accuracy+mcc", "--set", "metric=nll")
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val", "test", "--json", *own)
    assert ran.code == 0, ran.stderr
    scores = json.loads(ran.stdout)["best"]["scores"]
    assert (sorted(scores["val"]), sorted(scores["test"])) == (["accuracy+mcc"], ["nll"])
    over = json.loads(soup("rank", "--ckpts", "runs/*/", "--val", "val", "--json", *own, "--metric", "f1").stdout)
    assert list(over["best"]["scores"]["val"]) == ["f1"]
    parts = json.loads(
        soup("rank", "--ckpts", "runs/*/", "--val", "val", "--json", "--set", "metrics=[mcc, accuracy]").stdout
    )
    wanted = {
        one["path"]: (one["scores"]["val"]["mcc"]["value"] + one["scores"]["val"]["accuracy"]["value"]) / 2
        for one in parts["ingredients"]
    }
    found = json.loads(ran.stdout)["ingredients"]
    assert {one["path"]: one["scores"]["val"]["accuracy+mcc"]["value"] for one in found} == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--set", "val.val.metric=f_1"), "--set val.val.metric: 'f_1' is not known, did you mean 'f1'?"),
        (("--metric", "f_1"), "--metric: 'f_1' is not known, did you mean 'f1'?"),
        (("--set", "metrics=[eec]"), "--set metrics: 'eec' is not known, did you mean 'ece'?"),
        (("--metric", "pearson"), "val.val: has one class for each example, which pearson does not measure"),
        (("--metric", "perplexity"), "val.val: has one class for each example, which perplexity does not measure"),
    ],
)
def test_refused(family: Path, soup: Soup, words: tuple[str, ...], error: str) -> None:
    """Names that nobody knows, with the nearest; metrics of other labels, with those that there are."""
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val", *words)
    assert (ran.code, ran.stdout) == (2, "")
    assert error in ran.stderr
    assert "hint: " in ran.stderr


def test_refused_in_the_recipe(family: Path, soup: Soup) -> None:
    """A name in the file's list is told with its place there."""
    with Path("soup.yaml").open("a") as recipe:
        recipe.write("metrics: [eec]\n")
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val")
    assert "soup.yaml:6:10: metrics: 'eec' is not known, did you mean 'ece'?" in ran.stderr


def test_shards_by_path(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """--val takes shards, one or a quoted range, and says which one is missing."""
    monkeypatch.chdir(tmp_path)
    toys.vit(tmp_path / "runs/a")
    toys.vit(tmp_path / "runs/b", seed=1)
    for number in range(2):
        write_shard(tmp_path / f"val-{number}.tar", [m for k in range(3) for m in sample(tmp_path, str(k), k, seed=k)])
    whole = json.loads(soup("rank", "--ckpts", "runs/*/", "--val", "val-{0..1}.tar", "--json").stdout)
    one = json.loads(soup("rank", "--ckpts", "runs/*/", "--val", "val-0.tar", "--json").stdout)
    assert whole["best"]["scores"]["val-{0..1}.tar"]["accuracy"]["n"] == 6
    assert one["best"]["scores"]["val-0.tar"]["accuracy"]["n"] == 3
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val-{0..2}.tar")
    assert ran.code == 2
    assert "val-2.tar: no such shard" in ran.stderr


def test_tokens_by_path(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A greedy soup of language models by their perplexity on a text; a picture set beside it is none of theirs."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        folder = tmp_path / f"runs/{seed}"
        toys.word_tokenizer(folder)
        config = transformers.GPT2Config(vocab_size=len(toys.WORDS), n_positions=1024, n_embd=16, n_layer=1, n_head=2)
        toys.saved(transformers.GPT2LMHeadModel(config), folder, seed=seed)
    words = [word for word in toys.WORDS if word.isalpha()]
    drawn = torch.randint(0, len(words), (1500,), generator=torch.Generator().manual_seed(0)).tolist()
    Path("wiki.txt").write_text(" ".join(words[i] for i in drawn))
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "wiki.txt", "--json")
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    scores = [one["scores"]["wiki.txt"]["perplexity"]["value"] for one in report["ingredients"]]
    assert scores == sorted(scores)
    assert report["soup"]["scores"]["wiki.txt"]["perplexity"]["value"] <= scores[0]
    assert report["soup"]["scores"]["wiki.txt"]["perplexity"]["n"] == 1498
    class_folders(tmp_path / "val", {"a": 1})
    refused = soup("eval", "--ckpts", "soup/", "--val", "val")
    assert refused.code == 2
    assert "no image transform for" in refused.stderr
