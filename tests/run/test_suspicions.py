"""Scores near chance, or far from the trainer's own, are warned of, with what to look at; sound ones are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from soupcli.checkpoints.training_record import highest_in_table
from soupcli.evaluation.score import Score
from soupcli.run import suspicions
from tests.helpers import transformers_toys as toys
from tests.helpers.checkpoint_tensors import small_net

Soup = Callable[..., Any]
WORDS = ("good", "bad", "the", "film", "was", "not")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A sentence classifier and 200 sentences with its own answers as labels."""
    monkeypatch.chdir(tmp_path)
    model = toys.bert(tmp_path / "run", seed=3)
    generator = torch.Generator().manual_seed(0)
    texts = [" ".join(WORDS[i] for i in torch.randint(0, 6, (4,), generator=generator)) for _ in range(200)]
    tokenizer = toys.bert_tokenizer(tmp_path / "run")
    with torch.inference_mode():
        logits = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    return texts, logits.argmax(dim=1).tolist()


def write(texts: list[str], labels: list[int]) -> None:
    names = ("negative", "positive")
    rows = (json.dumps({"text": t, "label": names[label]}) + "\n" for t, label in zip(texts, labels, strict=True))
    Path("val.jsonl").write_text("".join(rows))


def warnings(soup: Soup) -> list[str]:
    ran = soup("rank", "--ckpts", "run", "--val", "val.jsonl", "--json")
    assert ran.code == 0, ran.stderr
    found = json.loads(ran.stdout)["warnings"]
    assert all(warning in ran.stderr for warning in found)
    return list(found)


def test_near_chance(run: Any, soup: Soup) -> None:
    """Labels that have nothing to do with the sentences."""
    write(run[0], torch.randint(0, 2, (200,), generator=torch.Generator().manual_seed(1)).tolist())
    (warning,) = warnings(soup)
    assert "is near chance (50.00% for 2 classes): look at which class is which (the network's class names)" in warning


def test_far_from_the_trainer(run: Any, soup: Soup) -> None:
    """An accuracy of 0.75 where the trainer wrote 0.999, as a share or in per cent; 0.8 is near enough."""
    texts, labels = run
    write(texts, [label if n % 4 else 1 - label for n, label in enumerate(labels)])
    assert warnings(soup) == []
    for recorded, far in ((0.999, True), (99.9, True), (0.8, False)):
        state = {"log_history": [{"eval_accuracy": recorded, "step": 1}], "global_step": 1}
        Path("run/trainer_state.json").write_text(json.dumps(state))
        said = warnings(soup)
        assert len(said) == far
        assert all("run has accuracy 75.00%, its trainer recorded eval_accuracy 99.90%" in one for one in said)


@pytest.mark.parametrize(("value", "told"), [("0.5", True), ("0.9", True), ("float(state['0.weight'].mean())", False)])
def test_all_the_same(tmp_path: Path, soup: Soup, value: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation that gives all checkpoints one score may not look at them at all."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        torch.save(small_net(seed).state_dict(), f"{seed}.pt")
    Path("mine.py").write_text(
        f"def build():\n    import torch.nn as nn\n"
        "    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))\n"
        f"def evaluate(model, device):\n    state = model.state_dict()\n    return {{'accuracy': {value}}}\n"
    )
    Path("soup.yaml").write_text("model: {python: 'mine.py:build'}\nval: {mine: {python: 'mine.py:evaluate'}}\n")
    ran = soup("rank", "--ckpts", "0.pt", "1.pt", "2.pt", "--val", "mine")
    assert ran.code == 0, ran.stderr
    said = f"mine: all 3 checkpoints have accuracy {value}: does the evaluation use the weights it is given?"
    assert (said in ran.stderr) == told
    assert ("--recalibrate estimates those of soups again" in ran.stderr) == (value == "0.5")


@pytest.mark.parametrize(
    ("outcomes", "apart"), [(("1101", "1101"), False), (("1101", "1011"), True), (("", ""), False)]
)
def test_a_coincidence(outcomes: tuple[str, str], apart: bool) -> None:
    """Equal accuracies of other right answers are no sign of anything."""
    scores = [
        Score({}, "accuracy", True, 4, {"accuracy": torch.tensor([int(right) for right in one])} if one else {})
        for one in outcomes
    ]
    assert suspicions._told_apart(scores) == apart


def test_a_soup_without_a_score(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A soup whose score is NaN is written and warned of; a gate on it is not met."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        torch.save(small_net(seed).state_dict(), f"{seed}.pt")
    Path("mine.py").write_text(
        "def score(model, device):\n    return {'accuracy': float('nan')}\n"
        "def build():\n    from tests.helpers.checkpoint_tensors import small_net\n    return small_net(0)\n"
    )
    Path("soup.yaml").write_text("model: {python: 'mine.py:build'}\nval: {mine: {python: 'mine.py:score'}}\n")
    words = ("uniform", "--ckpts", "0.pt", "1.pt", "--val", "mine", "--force")
    for more, code in (((), 0), (("--set", "gates={mine: '>= 0.1'}"), 1)):
        ran = soup(*words, *more)
        assert ran.code == code, ran.stderr
        assert "warning: mine: the soup's accuracy is not a number (NaN): do not use it unseen" in ran.stderr


def test_table_of_the_trainer(tmp_path: Path) -> None:
    """The greatest accuracy in a trainer's own csv counts as recorded; texts and numbers without end do not."""
    (tmp_path / "log.csv").write_text("epoch, val_acc,note\n0,0.5,x\n1,0.975,nan\n2,0.9,inf\n")
    assert highest_in_table(tmp_path) == {"epoch": 2.0, "val_acc": 0.975}
    assert highest_in_table(tmp_path / "nothing") == {}
    (tmp_path / "summary.csv").write_bytes(b"\xff\x00")
    assert highest_in_table(tmp_path) == {}
