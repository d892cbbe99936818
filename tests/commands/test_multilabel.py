"""Commands on sets whose examples have any number of classes: each against scikit-learn on what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor, nn

from soupcli.metrics.multilabel import binary_cross_entropy
from tests.conftest import Ran, build_net, write_family

Soup = Callable[..., Ran]
METRICS = ("--set", "metrics=[f1_micro, f1_macro, bce]")


@pytest.fixture
def multilabel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family that was trained by binary cross-entropy, and the working folder in it."""
    write_family(tmp_path / "family", multilabel=True)
    monkeypatch.chdir(tmp_path / "family")
    return tmp_path / "family"


def done(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def scored(file: str, data: str) -> dict[str, float]:
    """What scikit-learn and torch say of the weights in a file."""
    net, examples = build_net(), load_file(data)
    net.load_state_dict(load_file(file))
    with torch.no_grad():
        logits_nk: Tensor = net(examples["inputs"])
    labels_nk, predicted_nk = examples["labels"], logits_nk > 0
    return {
        "map": float(average_precision_score(labels_nk, logits_nk)),
        "f1_micro": float(f1_score(labels_nk, predicted_nk, average="micro")),
        "f1_macro": float(f1_score(labels_nk, predicted_nk, average="macro")),
        "bce": float(nn.BCEWithLogitsLoss()(logits_nk, labels_nk.float())),
    }


@pytest.mark.parametrize("command", ["uniform", "greedy", "learned"])
def test_a_soup_scores_as_scikit_learn_says(command: str, multilabel: Path, soup: Soup) -> None:
    """The written weights have the report's metrics on both sets, with errors and intervals; greedy does not lose."""
    steps = ("--set", "learned.steps=20", "learned.lr=0.3", "learned.folds=1") if command == "learned" else ()
    report = done(soup(command, "--ckpts", "runs/*/", "--val", "val", "test", "--json", *METRICS, *steps))
    for name in ("val", "test"):
        wanted = scored("soup/model.safetensors", f"data/{name}.safetensors")
        found = report["soup"]["scores"][name]
        assert {metric: of["value"] for metric, of in found.items()} == pytest.approx(wanted, abs=1e-6)
        assert all(of["stderr"] > 0 for of in found.values())
    if command != "uniform":
        best, mixed = (report[who]["scores"]["val"]["map"]["value"] for who in ("best", "soup"))
        assert mixed >= best or command == "learned"
        found = [of for of in report["comparisons"] if of["set"] == "test"]
        assert {of["metric"] for of in found} == {"map", "f1_micro", "f1_macro", "bce"}
        assert all(of["low"] <= of["difference"] <= of["high"] for of in found)


def test_early_stop_changes_nothing(multilabel: Path, soup: Soup) -> None:
    """Candidates that are given up are those that lose with a full evaluation, by rank and by count."""
    for metric in ("map", "f1_macro"):
        both = [
            done(soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--metric", metric, "--json", "--force", *words))
            for words in ((), ("--no-early-stop", "--fresh"))
        ]
        assert both[0]["soup"]["members"] == both[1]["soup"]["members"]
        assert both[0]["soup"]["hash"] == both[1]["soup"]["hash"]


def test_learned_fits_the_binary_loss(multilabel: Path, soup: Soup) -> None:
    """The first fitted loss is the mean binary cross-entropy of the start, and the fit brings it down."""
    words = ("--set", "learned.steps=40", "learned.lr=0.3", "learned.folds=1", "learned.temperature=false")
    fit = done(soup("learned", "--ckpts", "runs/*/", "--val", "val", "--json", *words, "learned.start=uniform"))[
        "learned"
    ]
    soup("uniform", "--ckpts", "runs/*/", "--out", "mean")
    whole = scored("mean/model.safetensors", "data/val.safetensors")["bce"]
    both = fit["fitted"][0] * fit["fitted_examples"] + fit["held_out"][0] * fit["held_out_examples"]
    assert both / 200 == pytest.approx(whole, abs=1e-6)
    assert min(fit["fitted"]) < fit["fitted"][0]


def test_smoothing_is_that_of_torch() -> None:
    """Smoothed targets go half of the way to one half."""
    logits_nk, labels_nk = torch.randn(5, 3), torch.randint(0, 2, (5, 3), dtype=torch.uint8)
    targets_nk = labels_nk * 0.8 + 0.1
    wanted = nn.functional.binary_cross_entropy_with_logits(logits_nk, targets_nk, reduction="none").mean(dim=1)
    torch.testing.assert_close(binary_cross_entropy(logits_nk, labels_nk, label_smoothing=0.2), wanted)


def test_ensembles_and_halves(multilabel: Path, soup: Soup) -> None:
    """Saved logits score as the networks do, and a held-out half is reported."""
    begin = ("greedy", "--ckpts", "runs/*/", "--val", "val", "--json")
    report = done(soup(*begin, "--logits", "kept", *METRICS))
    labels_nk = load_file("data/val.safetensors")["labels"]
    inputs, logits = load_file("data/val.safetensors")["inputs"], torch.zeros(200, 3)
    for number in range(5):
        net = build_net()
        net.load_state_dict(load_file(f"runs/{number}/model.safetensors"))
        with torch.no_grad():
            logits += net(inputs) / 5
    uniform = report["ensemble"]["scores"]["val"]["map"]["value"]
    assert uniform == pytest.approx(float(average_precision_score(labels_nk, logits)), abs=2e-3)
    halves = done(soup(*begin, "--holdout", "0.5", "--force"))
    assert set(halves["soup"]["scores"]) == {"val[selecting]", "val[held out]"}


def test_inspect_takes_such_sets(multilabel: Path, soup: Soup) -> None:
    """Scores of both ends and between them are looked at; one run with its classes turned round is found."""
    assert soup("inspect", "--ckpts", "runs/*/", "--val", "val", "--json").code == 0
    state = load_file("runs/3/model.safetensors")
    state["2.weight"], state["2.bias"] = state["2.weight"].flip(0).clone(), state["2.bias"].flip(0).clone()
    save_file(state, "runs/3/model.safetensors")
    told = soup("inspect", "--ckpts", "runs/*/", "--val", "val")
    assert "runs/3" in told.stdout


@pytest.mark.parametrize(
    ("metric", "problem", "hint"),
    [
        ("accuracy", "val.val: has rows of 0 and 1, any number of classes for each example, which accuracy", "map or"),
        ("f1", "which f1 does not measure", "map or f1_micro or f1_macro or bce"),
    ],
)
def test_other_metrics(metric: str, problem: str, hint: str, multilabel: Path, soup: Soup) -> None:
    """A metric of one class for each example is refused, with those that measure rows."""
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--metric", metric)
    assert ran.code == 2
    assert problem in ran.stderr.replace("\n", " ") and hint in ran.stderr


def test_another_number_of_classes(multilabel: Path, soup: Soup) -> None:
    """The error has both numbers."""
    data = load_file("data/val.safetensors")
    save_file({**data, "labels": data["labels"][:, :2].contiguous()}, "data/val.safetensors")
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val")
    assert ran.code == 2
    assert "val.val: labels are rows of 2 classes, the network has 3" in ran.stderr
