"""The recipes of texts, from their own files and commands, at toy sizes: every score is the library's own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from soupcli.recipe.precedence import load_recipe
from soupcli.recipe.sets import TextSet
from tests.conftest import Ran
from tests.evaluation.outside.test_lm_eval import task
from tests.helpers import transformers_toys as toys
from tests.helpers.config_runs import commands, moved, neighbours, settings

Soup = Callable[..., Ran]
COLUMNS = {
    "mrpc": ["sentence1", "sentence2"],
    "rte": ["sentence1", "sentence2"],
    "cola": ["sentence"],
    "sst2": ["sentence"],
}
# How the GLUE benchmark scores each set (Wang et al. 2019, Table 1).
GLUE: dict[str, Callable[[list[int], list[int]], float]] = {
    "mrpc": lambda true, named: (accuracy_score(true, named) + f1_score(true, named)) / 2,
    "rte": accuracy_score,
    "cola": matthews_corrcoef,
    "sst2": accuracy_score,
}
METRICS = {"mrpc": "accuracy+f1", "rte": "accuracy", "cola": "mcc", "sst2": "accuracy"}
SENTIMENT = {"good": 1, "bad": 0}
WORDS = ["the", "film", "was", "very", *SENTIMENT]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with configs/ and GLUE's four sets, the working folder."""
    generator = random.Random(0)
    for name, columns in COLUMNS.items():
        (tmp_path / f"data/glue/{name}").mkdir(parents=True)
        rows = []
        for _ in range(24):
            label = generator.randint(0, 1)
            words = [generator.choices(WORDS[:4], k=generator.randint(1, 4)) for _ in columns]
            words[-1].append(["bad", "good"][label])
            rows.append({column: " ".join(own) for column, own in zip(columns, words, strict=True)} | {"label": label})
        (tmp_path / f"data/glue/{name}/dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    moved(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"data/glue/{name}/dev.jsonl").read_text().splitlines()]


def family(start: Any, run: Path, *, number: int = 3) -> None:
    """Neighbours of a saved network, as save_pretrained writes them, with the tokenizer of `run`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    for place, state in enumerate(neighbours(start.state_dict(), number)):
        start.load_state_dict(state)
        start.save_pretrained(f"runs/mrpc/{place}")
        tokenizer.save_pretrained(f"runs/mrpc/{place}")


def soup_scores(soup: Soup, recipe: str) -> dict[str, float]:
    """The command of MRPC at the recipe's head, then every set's metric of its soup by soup eval."""
    ran = soup(*commands(recipe)[0], "--json")
    assert ran.code == 0, ran.stderr
    steps = json.loads(ran.stdout)["steps"]
    assert len(steps) == 3
    ran = soup("eval", "--recipe", f"configs/{recipe}.yaml", "--ckpts", "soup-mrpc", "--val", *COLUMNS, "--json")
    assert ran.code == 0, ran.stderr
    scores = json.loads(ran.stdout)["best"]["scores"]
    assert soup("uniform", "--ckpts", "runs/mrpc/*/", "--out", "mean", "--quiet").code == 0
    ran = soup("rank", "--recipe", f"configs/{recipe}.yaml", "--ckpts", "soup-mrpc", "mean", "--val", "mrpc", "--quiet")
    assert {"mean"} <= set(ran.stdout.split()) <= {"mean", "soup-mrpc"}  # one alone, if both are the same mean
    return {name: scores[name][metric]["value"] for name, metric in METRICS.items()}


def test_bert(home: Path, soup: Soup) -> None:
    """Each set's score is what transformers' own Trainer measures with the soup's folder, by scikit-learn's metrics."""
    family(toys.bert(home / "start"), home / "start")
    scores = soup_scores(soup, "bert-glue")
    model = transformers.AutoModelForSequenceClassification.from_pretrained("soup-mrpc").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("soup-mrpc")
    arguments = transformers.TrainingArguments(
        str(home / "trainer"), per_device_eval_batch_size=5, use_cpu=True, report_to=[], disable_tqdm=True
    )
    for name, columns in COLUMNS.items():

        def glue(found: transformers.EvalPrediction, metric: Callable[..., float] = GLUE[name]) -> dict[str, float]:
            return {"glue": metric(found.label_ids.tolist(), found.predictions.argmax(axis=1).tolist())}

        examples = [
            {**tokenizer(*(row[column] for column in columns), truncation=True), "labels": row["label"]}
            for row in rows_of(name)
        ]
        trainer = transformers.Trainer(model, arguments, processing_class=tokenizer, compute_metrics=glue)
        assert scores[name] == pytest.approx(trainer.evaluate(examples)["eval_glue"], rel=1e-12)


@pytest.mark.long
def test_t5(home: Path, soup: Soup) -> None:
    """Each set's score is that of the label which the loss of transformers likes best; what it writes agrees."""
    sets = {
        name: spec for name, spec in load_recipe(Path("configs/t5-glue.yaml")).val.items() if isinstance(spec, TextSet)
    }
    prefixes = sorted({word for spec in sets.values() for word in str(spec.template).split() if "{" not in word})
    labels = sorted({word for spec in sets.values() for word in spec.labels or []})
    model = toys.t5(home / "start", words=[*prefixes, *labels, *WORDS])
    taught(model, transformers.AutoTokenizer.from_pretrained("start"), sets)
    family(model, home / "start")
    scores = soup_scores(soup, "t5-glue")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained("soup-mrpc").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("soup-mrpc")
    for name, spec in sets.items():
        rows, words = rows_of(name), list(spec.labels or [])
        named = [likeliest(model, tokenizer, str(spec.template).format(**row), words) for row in rows]
        assert scores[name] == pytest.approx(GLUE[name]([row["label"] for row in rows], named), rel=1e-12)
        encoded = tokenizer([str(spec.template).format(**row) for row in rows], padding=True, return_tensors="pt")
        given = {key: encoded[key] for key in ("input_ids", "attention_mask")}
        written = tokenizer.batch_decode(model.generate(**given, max_new_tokens=4), skip_special_tokens=True)
        assert [words.index(text) for text in written if text in words] == [
            guess for guess, text in zip(named, written, strict=True) if text in words
        ]
        assert sum(text in words for text in written) > len(rows) / 2


def taught(model: Any, tokenizer: Any, sets: dict[str, TextSet]) -> None:
    """A few steps of fine-tuning, after which it answers in label words."""
    examples = [
        (str(spec.template).format(**row), (spec.labels or [])[row["label"]])
        for name, spec in sets.items()
        for row in rows_of(name)
    ]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 if parameter.dim() > 1 else torch.ones_like(parameter))
    encoded = tokenizer([text for text, _ in examples], padding=True, return_tensors="pt")
    targets = tokenizer(text_target=[label for _, label in examples], padding=True, return_tensors="pt")["input_ids"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], labels=targets).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def likeliest(model: Any, tokenizer: Any, text: str, words: list[str]) -> int:
    """The label whose words have the least summed loss, one at a time."""
    encoded = tokenizer(text, return_tensors="pt")
    losses = []
    with torch.inference_mode():
        for word in words:
            target = tokenizer(text_target=word, return_tensors="pt")["input_ids"]
            given = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
            losses.append(float(model(**given, labels=target).loss) * target.shape[1])
    return losses.index(min(losses))


@pytest.fixture
def _harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # seconds, and not compared


@pytest.mark.long
@pytest.mark.usefixtures("_harness")
def test_llm_anneal(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Llamas in bfloat16 shards: tasks are the harness's own scores of the soup's folder, the gates are answered."""
    moved(tmp_path)
    monkeypatch.chdir(tmp_path)
    tokenizer = toys.word_tokenizer(tmp_path / "start", eos_token="[SEP]")
    config = transformers.LlamaConfig(
        vocab_size=len(toys.WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    model = toys.saved(transformers.LlamaForCausalLM(config), tmp_path / "start", dtype=torch.bfloat16)
    for number, state in enumerate(neighbours(model.state_dict(), 3)):
        model.load_state_dict(state)
        model.save_pretrained(f"anneals/{number}", max_shard_size="4KB")
        tokenizer.save_pretrained(f"anneals/{number}")
        assert Path(f"anneals/{number}/model.safetensors.index.json").is_file()
    sets = {"select": ["arc_challenge", "hellaswag"], "knowledge": ["mmlu"], "reasoning": ["winogrande", "piqa"]}
    for place, name in enumerate(name for names in sets.values() for name in names):
        task(tmp_path / "tasks", name, rows=9, seed=place)
    words = [word for word in toys.WORDS if word.isalpha()]
    (tmp_path / "data/wikitext-103").mkdir(parents=True)
    (tmp_path / "data/wikitext-103/test.txt").write_text(" ".join(random.Random(0).choices(words, k=200)))
    numbers = settings(
        **{f"val__{name}__include_path": str(tmp_path / "tasks") for name in sets},
        val__text__context="32",
        val__text__stride="8",
        max_shard_size="4KB",
    )
    uniform, greedy = commands("llm-anneal")
    report: dict[str, Any] = {}
    codes: list[int] = []
    for command in (uniform, greedy):
        ran = soup(*command, *numbers, "--json", "--force")
        codes.append(ran.code)
        assert ran.code in (0, 1), ran.stderr
        report = json.loads(ran.stdout)
        assert "model.safetensors.index.json" in report["soup"]["files"]
        assert report["soup"]["dtypes"].keys() == {"bfloat16"}
        scores = report["soup"]["scores"]
        network = HFLM(
            pretrained=transformers.AutoModelForCausalLM.from_pretrained("configs/soup-llm"),
            tokenizer=transformers.AutoTokenizer.from_pretrained("configs/soup-llm"),
            batch_size=4,
        )
        for name, tasks in sets.items():
            metric, shots = ("acc_norm" if name == "select" else "acc"), 5 if name == "knowledge" else None
            manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
            found = simple_evaluate(network, tasks=tasks, task_manager=manager, bootstrap_iters=10, num_fewshot=shots)[
                "results"
            ]
            wanted = sum(found[one][f"{metric},none"] for one in tasks) / len(tasks)
            assert scores[name][metric]["value"] == pytest.approx(wanted, abs=1e-12)
        assert scores["text"]["perplexity"]["n"] > 150
    assert {gate["key"] for gate in report["gates"]} == {"gates.knowledge", "gates.reasoning", "gates.text"}
    assert codes[-1] == (0 if all(gate["met"] for gate in report["gates"]) else 1)
