"""Networks from text to text: the likelihood of label words is what transformers itself computes as a loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from soupcli.errors import NetworkError
from tests.helpers import transformers_toys as toys
from tests.helpers.evaluators import score

WORDS = ["mrpc", "sentence1:", "sentence2:", "the", "film", "was", "good", "bad", "not", "equivalent", "not_equivalent"]
ROWS: list[dict[str, Any]] = [
    {"sentence1": "the film was good", "sentence2": "the film was bad", "label": "not equivalent"},
    {"sentence1": "good", "sentence2": "the good film", "label": "equivalent"},
    {"sentence1": "bad film bad", "sentence2": "not good", "label": "equivalent"},
    {"sentence1": "the film", "sentence2": "the film", "label": "not equivalent"},
]
LABELS = ["not equivalent", "equivalent"]  # of two words and of one
TEMPLATE = "mrpc sentence1: {sentence1} sentence2: {sentence2}"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "mrpc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path / "mrpc.jsonl"


def bart(folder: Path, words: list[str]) -> None:
    """Another network of the kind, whose decoder begins with another token, with the tokenizer of the toy T5."""
    toys.t5(folder, words=words)
    config = transformers.BartConfig(
        vocab_size=len(words) + 3,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    toys.saved(transformers.BartForConditionalGeneration(config), folder)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_equals_the_loss(kind: str, rows: Path, tmp_path: Path) -> None:
    """Each example's logits are minus the summed losses of the label words, one example and one label at a time."""
    run = tmp_path / "run"
    if kind == "t5":
        toys.t5(run, words=WORDS)
    else:
        bart(run, WORDS)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(run).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    logits_nk = torch.empty(len(ROWS), 2, dtype=torch.float64)
    with torch.inference_mode():
        for n, row in enumerate(ROWS):
            encoded = tokenizer(TEMPLATE.format(**row), return_tensors="pt")
            for k, word in enumerate(LABELS):
                target = tokenizer(text_target=word, return_tensors="pt")["input_ids"]
                given = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
                logits_nk[n, k] = -model(**given, labels=target).loss * target.shape[1]
    labels_n = torch.tensor([0, 1, 1, 0])
    recipe = {"text": rows, "template": TEMPLATE, "labels": LABELS}
    found = score({"val": {"val": recipe}, "metric": "nll", "metrics": ["accuracy", "accuracy+f1"]}, run)
    wanted = torch.nn.functional.cross_entropy(logits_nk, labels_n, reduction="none")
    assert torch.allclose(found.outcomes["nll"], wanted, rtol=1e-4, atol=1e-5)
    assert found.metrics["accuracy"].value == (logits_nk.argmax(dim=1) == labels_n).sum().item() / 4
    alone = score({"val": {"val": recipe}, "metric": "nll", "batch_size": 1}, run, cache=tmp_path / "other")
    assert torch.allclose(alone.outcomes["nll"], found.outcomes["nll"], rtol=1e-5)


def test_words_must_be_named(rows: Path, tmp_path: Path) -> None:
    """Without label words there is nothing to ask for."""
    rows.write_text("".join(json.dumps(row | {"label": n % 2}) + "\n" for n, row in enumerate(ROWS)))
    toys.t5(tmp_path / "run", words=WORDS)
    with pytest.raises(NetworkError, match=r"val\.val: the network answers in words, and the set does not say") as e:
        score({"val": {"val": {"text": rows, "template": TEMPLATE}}}, tmp_path / "run")
    assert "labels: [negative, positive]" in str(e.value.hint)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["equivalent", "equivalnt"], "labels: the tokenizer does not know 'equivalnt'"),
        (["not good", "not  good"], "labels: 'not good' and 'not  good' are the same to the tokenizer"),
    ],
)
def test_words_that_are_none(labels: list[str], message: str, rows: Path, tmp_path: Path) -> None:
    """A misspelt label would be scored as any other unknown word, two equal ones as a coin."""
    toys.t5(tmp_path / "run", words=WORDS)
    rows.write_text("".join(json.dumps(row | {"label": n % 2}) + "\n" for n, row in enumerate(ROWS)))
    with pytest.raises(NetworkError, match=message):
        score({"val": {"val": {"text": rows, "template": TEMPLATE, "labels": labels}}}, tmp_path / "run")
