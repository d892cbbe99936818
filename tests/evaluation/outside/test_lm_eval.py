"""Tasks of lm-evaluation-harness over files of our own: the score is the harness's, the network stays as it was."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import socket
import types
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from soupcli import processes
from soupcli.checkpoints.open import open_checkpoint
from soupcli.environment import import_extra
from soupcli.errors import NetworkError, ValidationError
from soupcli.evaluation.outside import lm_eval as lm_eval_task
from soupcli.mixing.mixture import Mixture
from soupcli.recipe.sets import LmEvalSet
from tests.helpers import transformers_toys as toys
from tests.helpers.evaluators import evaluators, score

CHOICE = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: multiple_choice
test_split: test
fewshot_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
GENERATE = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "good"
generation_kwargs: {{max_gen_toks: 2, until: ["."]}}
filter_list:
  - {{name: strict, filter: [{{function: take_first}}]}}
  - {{name: loose, filter: [{{function: take_first}}]}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
PERPLEXITY = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list:
  - {{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
"""
WORDS = [word for word in toys.WORDS if word.isalpha()]


@pytest.fixture(autouse=True)
def _own_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # seconds, and not compared


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A causal language model whose head is tied, and its tokenizer."""
    return language_model(tmp_path / "run")


def language_model(folder: Path, *, seed: int = 0) -> Path:
    toys.word_tokenizer(folder, eos_token="[SEP]")
    config = transformers.GPT2Config(
        vocab_size=len(toys.WORDS), n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=3, eos_token_id=3
    )
    toys.saved(transformers.GPT2LMHeadModel(config), folder, seed=seed)
    return folder


def task(folder: Path, name: str, *, form: str = CHOICE, rows: int = 30, seed: int = 0) -> None:
    """A task of the harness and its documents."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> str:
        return " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (count,), generator=generator).tolist())

    file = folder / f"{name}.jsonl"
    folder.mkdir(exist_ok=True)
    documents = [
        {"question": words(4), "choices": [words(2), words(1), words(3)], "answer": n % 3} for n in range(rows)
    ]
    file.write_text("".join(json.dumps(document) + "\n" for document in documents))
    (folder / f"{name}.yaml").write_text(form.format(name=name, file=file))


def recipe(folder: Path, *tasks: str, **options: Any) -> dict[str, Any]:
    return {"val": {"val": {"lm_eval": list(tasks), "include_path": folder, **options}}}


def harness(run: Path, folder: Path, *tasks: str, **options: Any) -> Any:
    """What the harness's own entry point says of the saved model."""
    model = transformers.AutoModelForCausalLM.from_pretrained(run)
    network = HFLM(pretrained=model, tokenizer=transformers.AutoTokenizer.from_pretrained(run), batch_size=4)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return simple_evaluate(network, tasks=list(tasks), task_manager=manager, bootstrap_iters=10, **options)["results"]


@pytest.mark.parametrize("options", [{}, {"limit": 7}, {"num_fewshot": 2, "limit": 5}])
def test_equals_the_harness(run: Path, tmp_path: Path, options: dict[str, int]) -> None:
    """Value, error and count of each task's metrics; the score is the mean over the tasks, errors in quadrature."""
    task(tmp_path / "tasks", "one")
    task(tmp_path / "tasks", "two", rows=12, seed=1)
    wanted = harness(run, tmp_path / "tasks", "one", "two", **options)
    found = score(recipe(tmp_path / "tasks", "one", "two", metric="acc_norm", **options) | {"batch_size": 4}, run)
    for name, n in (("one", 30), ("two", 12)):
        for metric in ("acc", "acc_norm"):
            value = found.metrics[f"{name}/{metric},none"]
            assert value.value == wanted[name][f"{metric},none"]
            assert value.stderr == wanted[name][f"{metric}_stderr,none"]
            assert value.n == min(n, options.get("limit", n))
    each = [wanted[name]["acc_norm,none"] for name in ("one", "two")]
    errors = [wanted[name]["acc_norm_stderr,none"] for name in ("one", "two")]
    assert (found.selecting, found.higher_is_better) == ("acc_norm", True)
    assert found.value == pytest.approx(sum(each) / 2, abs=1e-15)
    assert found.metrics["acc_norm"].stderr == pytest.approx(math.hypot(*errors) / 2, rel=1e-12)
    assert found.examples == sum(min(n, options.get("limit", n)) for n in (30, 12))


def test_groups(run: Path, tmp_path: Path) -> None:
    """A group's own mean counts; its tasks stand beside the harness's value of it."""
    for name in ("one", "two"):
        task(tmp_path / "tasks", name, rows=5 if name == "one" else 15)
    (tmp_path / "tasks/both.yaml").write_text(
        "group: both\ntask: [one, two]\naggregate_metric_list:\n  - {metric: acc, weight_by_size: true}\n"
    )
    wanted = harness(run, tmp_path / "tasks", "both")
    found = score(recipe(tmp_path / "tasks", "both"), run)
    assert found.value == wanted["both"]["acc,none"]
    assert found.examples == 20


def in_process(number: int, port: int, recipe: dict[str, Any], run: Path, told: Any) -> None:
    """What one of two processes does, as torchrun starts them."""
    asked: list[str] = []

    def noted(module: str, *, extra: str) -> Any:
        found = import_extra(module, extra=extra)
        if module != "lm_eval.evaluator":
            return found

        def evaluate(network: Any, unit: Any, **options: Any) -> Any:
            asked.extend(unit["tasks"])
            return found.evaluate(network, unit, **options)

        return types.SimpleNamespace(evaluate=evaluate)

    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(port)
    vars(lm_eval_task)["import_extra"] = noted
    processes.join()
    told.put((number, score(recipe, run)._replace(outcomes={}), asked))
    processes.leave()


def test_processes_share_the_tasks(run: Path, tmp_path: Path) -> None:
    """Two processes evaluate a group and two tasks of one checkpoint, each some of them: the same score as one."""
    for number, name in enumerate(("one", "two", "three", "four")):
        task(tmp_path / "tasks", name, rows=3 + number, seed=number)
    (tmp_path / "tasks/both.yaml").write_text(
        "group: both\ntask: [one, two]\naggregate_metric_list:\n  - {metric: acc, weight_by_size: true}\n"
    )
    asked = recipe(tmp_path / "tasks", "three", "both", "four")
    alone = score(asked, run, cache=tmp_path / "alone")
    context = multiprocessing.get_context("fork")
    told: Any = context.Queue()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    begun = [context.Process(target=in_process, args=(number, port, asked, run, told)) for number in range(2)]
    for one in begun:
        one.start()
    found = sorted(told.get(timeout=60) for _ in begun)
    for one in begun:
        one.join(60)
    assert [own for _, _, own in found] == [["three", "four"], ["one", "two"]]
    assert found[0][1] == found[1][1] == alone


def test_lower_is_better(run: Path, tmp_path: Path) -> None:
    """The harness says which way a metric goes; one whose error needs a bootstrap has none."""
    task(tmp_path / "tasks", "plain", form=PERPLEXITY)
    wanted = harness(run, tmp_path / "tasks", "plain")
    found = score(recipe(tmp_path / "tasks", "plain", metric="word_perplexity"), run)
    assert (found.value, found.higher_is_better) == (wanted["plain"]["word_perplexity,none"], False)
    assert found.metrics["word_perplexity"].stderr is None


def test_filters(run: Path, tmp_path: Path) -> None:
    """A metric of several filters is named with its filter."""
    task(tmp_path / "tasks", "told", form=GENERATE, rows=3)
    found = score(recipe(tmp_path / "tasks", "told", metric="exact_match,loose"), run)
    assert found.selecting == "exact_match,loose"
    with pytest.raises(ValidationError, match="told has exact_match of several filters") as raised:
        score(recipe(tmp_path / "tasks", "told", metric="exact_match"), run)
    assert raised.value.hint == "metric: one of exact_match,strict, exact_match,loose"


def test_the_resident_network(run: Path, tmp_path: Path) -> None:
    """Weights come and go in the one network, tied as they were; scores are kept until a document changes."""
    task(tmp_path / "tasks", "one")
    other = language_model(tmp_path / "other", seed=1)
    mixtures = [Mixture.uniform([open_checkpoint(path) for path in paths]) for paths in ([run], [other], [run, other])]
    made = evaluators(recipe(tmp_path / "tasks", "one"), run)
    scores = [made.on("val")(mixture) for mixture in mixtures]
    assert [found.value for found in scores[:2]] == [
        harness(path, tmp_path / "tasks", "one")["one"]["acc,none"] for path in (run, other)
    ]
    made.live.load(mixtures[1])
    module: Any = made.network.module
    assert module.lm_head.weight is module.transformer.wte.weight
    wanted = transformers.AutoModelForCausalLM.from_pretrained(other).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in module.state_dict().items())
    assert made.on("val")(mixtures[0]).examples == 0
    again = evaluators(recipe(tmp_path / "tasks", "one"), run)
    assert again.on("val")(mixtures[2]) == scores[2]._replace(examples=0)
    file = tmp_path / "tasks/one.jsonl"
    file.write_text(file.read_text().replace('"answer": 0', '"answer": 1', 1))
    assert evaluators(recipe(tmp_path / "tasks", "one"), run).on("val")(mixtures[2]).examples == 30


def test_random_states_are_left_alone(run: Path, tmp_path: Path) -> None:
    """The harness seeds all generators; afterwards they go on where they were."""
    task(tmp_path / "tasks", "one", rows=3)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    wanted = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    score(recipe(tmp_path / "tasks", "one"), run)
    assert (random.random(), np.random.rand(), torch.rand(1)) == wanted


def test_silence(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The harness's bars and remarks are not shown."""
    task(tmp_path / "tasks", "one", rows=3)
    capfd.readouterr()
    score(recipe(tmp_path / "tasks", "one"), run)
    assert capfd.readouterr() == ("", "")


def test_errors(run: Path, tmp_path: Path) -> None:
    """A metric, a task, data or a folder that is not there is one line with what there is instead."""
    task(tmp_path / "tasks", "one", rows=3)
    with pytest.raises(ValidationError, match="one has no metric 'accnorm', did you mean 'acc_norm'") as raised:
        score(recipe(tmp_path / "tasks", "one", metric="accnorm"), run)
    assert raised.value.hint == "metric: one of acc, acc_norm"
    (tmp_path / "tasks/one.jsonl").unlink()
    with pytest.raises(ValidationError, match=r"lm_eval: one: FileNotFoundError: .*one.jsonl"):
        lm_eval_task.load(LmEvalSet(lm_eval=["one"], include_path=tmp_path / "tasks"))
    with pytest.raises(ValidationError, match="nowhere: no such folder"):
        lm_eval_task.load(LmEvalSet(lm_eval=["one"], include_path=tmp_path / "nowhere"))


def test_unknown_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that nobody has: the built-in ones are looked through too, then the nearest name is said."""
    task(tmp_path / "tasks", "hellaswag")
    asked: list[bool] = []

    def few(include_path: str, include_defaults: bool = True) -> TaskManager:
        asked.append(include_defaults)
        return TaskManager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", few)
    with pytest.raises(ValidationError, match="lm_eval: has no task 'hellaswagg', did you mean 'hellaswag'"):
        lm_eval_task.load(LmEvalSet(lm_eval=["hellaswagg"], include_path=tmp_path / "tasks"))
    assert asked == [False, True]


def test_networks_that_it_cannot_ask(tmp_path: Path, run: Path) -> None:
    """Only networks of transformers with a tokenizer."""
    task(tmp_path / "tasks", "one", rows=3)
    tasks = lm_eval_task.load(LmEvalSet(lm_eval=["one"], include_path=tmp_path / "tasks"))
    with pytest.raises(NetworkError, match="takes a network of transformers, Linear is none"):
        tasks.score(torch.nn.Linear(2, 2), None, batch_size=1)
    model = transformers.AutoModelForCausalLM.from_pretrained(run)
    with pytest.raises(NetworkError, match="no tokenizer beside the weights"):
        tasks.score(model, None, batch_size=1)
