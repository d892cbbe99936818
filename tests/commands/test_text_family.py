"""`soup greedy` on fine-tuned transformers: real BERTs, a real tokenizer, sentences; against the paper's recipe."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Ran
from tests.helpers import greedy_reference as reference

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

Soup = Callable[..., Ran]
GOOD, BAD = ["good", "fine", "great", "warm", "kind"], ["bad", "poor", "awful", "cold", "mean"]
OTHER = ["the", "a", "film", "meal", "day", "was", "very", "quite", "not", "so", "and", "it"]
LABELS = ["negative", "positive"]


def sentences(count: int, seed: int) -> list[dict[str, str]]:
    """Labelled sentences: as many good as bad words decide, with noise; lengths from 2 to 14."""
    generator = random.Random(seed)
    rows = []
    for _ in range(count):
        words = generator.choices(GOOD + BAD + OTHER, k=generator.randint(2, 14))
        tendency = sum(w in GOOD for w in words) - sum(w in BAD for w in words) + generator.gauss(0, 0.8)
        rows.append({"sentence": " ".join(words), "label": LABELS[tendency > 0]})
    return rows


def make_tokenizer() -> Any:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *OTHER])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def logits_of(model: Any, tokenizer: Any, rows: list[dict[str, str]]) -> torch.Tensor:
    batch = tokenizer([row["sentence"] for row in rows], padding=True, return_tensors="pt")
    found: torch.Tensor = model(**batch).logits
    return found


def labels_of(rows: list[dict[str, str]]) -> torch.Tensor:
    return torch.tensor([LABELS.index(row["label"]) for row in rows])


def finetune(model: Any, tokenizer: Any, *, steps: int, batch: int, lr: float, seed: int) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr)
    for step in range(steps):
        rows = sentences(batch, seed * 1000 + step)
        loss = torch.nn.functional.cross_entropy(logits_of(model, tokenizer, rows), labels_of(rows))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.fixture(scope="module")
def bert_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classifiers fine-tuned from one start, saved by save_pretrained with their tokenizer, and a copy of each."""
    folder = tmp_path_factory.mktemp("text")
    tokenizer = make_tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        finetune(model, tokenizer, steps=120, batch=32, lr=5e-3, seed=0)
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for number in range(5):
            model.load_state_dict(start)
            finetune(model, tokenizer, steps=15, batch=8, lr=(5e-4, 1e-3, 1.5e-3)[number % 3], seed=number + 1)
            model.save_pretrained(folder / f"runs/{number}")
            tokenizer.save_pretrained(folder / f"runs/{number}")
            shutil.copytree(folder / f"runs/{number}", folder / f"runs/{number + 5}")
    for name, count, seed in (("val", 150, 77_000), ("test", 200, 88_000)):
        lines = "".join(json.dumps(row) + "\n" for row in sentences(count, seed))
        (folder / f"{name}.jsonl").write_text(lines)
    (folder / "soup.yaml").write_text(
        "model: {transformers: auto}\nval:\n"
        "  val: {text: val.jsonl, input: [sentence], label: label}\n"
        "  test: {text: test.jsonl, input: [sentence], label: label}\n"
    )
    return folder


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_equals_recipe_1(
    bert_family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, metric: str
) -> None:
    """Ranking, members, scores and tensors are those of the reference with transformers alone; the soup loads."""
    monkeypatch.chdir(bert_family)
    tokenizer, measure = make_tokenizer(), {"accuracy": reference.accuracy, "nll": reference.nll}[metric]
    model = transformers.AutoModelForSequenceClassification.from_pretrained("runs/0")
    rows = [json.loads(line) for line in Path("val.jsonl").read_text().splitlines()]

    @torch.no_grad()
    def score(state: reference.State) -> float:
        model.load_state_dict(state)
        return measure(logits_of(model.eval(), tokenizer, rows), labels_of(rows))

    states = {f"runs/{n}": load_file(f"runs/{n}/model.safetensors") for n in range(5)}  # each of the others is a double
    expected = reference.recipe_1(states, score, higher=metric == "accuracy")
    out = str(tmp_path / "soup")
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--metric", metric, "--json", "--out", out)
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert [left["path"] for left in report["left_out"]] == [f"runs/{n}" for n in range(5, 10)]

    close = {"accuracy": 0, "nll": 1e-6}[metric]  # float32 logits differ in the last place with the padding
    ranking = [(i["path"], i["scores"]["val"][metric]["value"]) for i in report["ingredients"]]
    assert ranking == [(path, pytest.approx(value, rel=close, abs=0)) for path, value in expected.ranking]
    assert [(s["candidate"], s["accepted"]) for s in report["steps"]] == [(s[0], s[3]) for s in expected.steps]
    assert report["soup"]["members"] == expected.members
    assert len(expected.members) > 1
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    assert all(torch.equal(tensor, expected.state[name]) for name, tensor in loaded.state_dict().items())
    again = transformers.AutoTokenizer.from_pretrained(out)
    assert again("the film was good")["input_ids"] == tokenizer("the film was good")["input_ids"]


def test_side_files(bert_family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The soup folder holds the weights, the report, and the configuration and tokenizer of the best ingredient."""
    monkeypatch.chdir(bert_family)
    out = tmp_path / "soup"
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--json", "--out", str(out))
    best = Path(json.loads(ran.stdout)["best"]["path"])
    of_best = [file.name for file in best.iterdir()]
    assert sorted(file.name for file in out.iterdir()) == sorted(["soup.json", "README.md", *of_best])
    assert all((out / name).read_bytes() == (best / name).read_bytes() for name in ("config.json", "tokenizer.json"))
    assert json.loads((out / "soup.json").read_text()) == json.loads(ran.stdout)


def test_shards_load(bert_family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A soup in shards loads with transformers as the whole one does."""
    monkeypatch.chdir(bert_family)
    loaded = []
    for size in ("1GB", "4KB"):
        out = tmp_path / size
        assert soup("uniform", "--ckpts", "runs/[0-4]", "--out", str(out), "--max-shard-size", size).code == 0
        loaded.append(transformers.AutoModelForSequenceClassification.from_pretrained(out).state_dict())
        assert (out / "model.safetensors.index.json").exists() == (size == "4KB")
    assert loaded[0].keys() == loaded[1].keys()
    assert all(torch.equal(tensor, loaded[1][name]) for name, tensor in loaded[0].items())


def test_init_needs_no_help(bert_family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`soup init` recognises checkpoints, network, sentences and labels; its recipe ranks as the written one does."""
    monkeypatch.chdir(bert_family)
    by_hand = soup("rank", "--ckpts", "runs/*/", "--val", "val", "--quiet")
    assert soup("init", "--out", "found.yaml").code == 0
    ran = soup("rank", "-r", "found.yaml", "--ckpts", "runs/*/", "--val", "val", "--quiet")
    assert (ran.code, ran.stdout) == (0, by_hand.stdout)
    assert "model: {transformers: auto}" in Path("found.yaml").read_text()
