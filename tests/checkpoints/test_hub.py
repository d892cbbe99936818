"""Models of the Hub as ingredients, from a hub on the loopback."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupcli.checkpoints.hub import HubFile, Reference, hub_reference, needed
from soupcli.errors import CheckpointError
from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import small_net
from tests.helpers.hub import Hub, Model, serve
from tests.helpers.warm import Warm

Soup = Callable[..., Ran]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that huggingface_hub asks in this process, an empty cache, and the working folder beside them."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.chdir(tmp_path)
    with serve() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
        yield served


def write(folder: Path, seed: int, **others: bytes) -> Path:
    """A folder of weights with a configuration, and other files beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(small_net(seed).state_dict(), folder / "model.safetensors")
    files = {"config.json": json.dumps({"model_type": "toy"}).encode()}
    files |= {name.replace("__", "/"): data for name, data in others.items()}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_ids_mixed_with_paths(hub: Hub, tmp_path: Path, soup: Soup) -> None:
    """A model, an older commit of it by its tag, and a local folder: the mean of all, with their commits."""
    first = hub.add("org/a", write(tmp_path / "one", 1), branch="v1")
    second = hub.add("org/a", write(tmp_path / "two", 2))
    write(tmp_path / "here", 3)
    ran = soup("uniform", "--ckpts", "org/a", "org/a@v1", "here", "--out", "soup", "--json")
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert {one["path"]: one["revision"] for one in report["ingredients"]} == {
        "here": None,
        "org/a": second,
        "org/a@v1": first,
    }
    nets = [small_net(seed).state_dict() for seed in (1, 2, 3)]
    for name, tensor in load_file("soup/model.safetensors").items():
        mean = torch.stack([net[name].double() for net in nets]).mean(dim=0).to(tensor.dtype)
        assert torch.equal(tensor, mean), name
    assert (tmp_path / "soup/config.json").is_file()
    card = (tmp_path / "soup/README.md").read_text()
    assert "base_model:\n- org/a\nbase_model_relation: merge" in card
    assert "Bearer hf_of_this_test" in hub.tokens


def test_rebuilt_from_the_same_commit(hub: Hub, tmp_path: Path, soup: Soup) -> None:
    """The model moves on: the soup is still verified and rebuilt, from the commits of its report."""
    hub.add("org/a", write(tmp_path / "one", 1))
    hub.add("org/b", write(tmp_path / "two", 2))
    assert soup("uniform", "--ckpts", "org/a", "org/b").code == 0
    hub.add("org/a", write(tmp_path / "one", 5))
    ran = soup("verify", "soup", "--rebuild", "--json")
    assert ran.code == 0, ran.stdout
    assert all(check["as_reported"] for check in json.loads(ran.stdout)["checks"])


MODEL = """from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
"""
RECIPE = """model: {python: "my_model.py:build"}
val:
  v: {arrays: v.safetensors}
"""


def test_kept_scores(hub: Hub, tmp_path: Path, soup: Soup) -> None:
    """Scores of the same commit are served, whatever names it; a new commit is evaluated anew."""
    first = hub.add("org/a", write(tmp_path / "one", 1))
    hub.add("org/b", write(tmp_path / "two", 2))
    Path("my_model.py").write_text(MODEL)
    Path("soup.yaml").write_text(RECIPE)
    save_file({"inputs": torch.randn(10, 4), "labels": torch.arange(10) % 3}, "v.safetensors")

    def evaluated(*words: str) -> int:
        ran = soup("rank", "--ckpts", *words, "--val", "v", "--json")
        assert ran.code == 0, ran.stderr
        return int(json.loads(ran.stdout)["cost"]["examples"])

    assert evaluated("org/a", "org/b") == 20
    assert evaluated("org/a", "org/b") == evaluated(f"org/a@{first}", "org/b") == 0
    hub.add("org/a", write(tmp_path / "one", 5))
    assert evaluated("org/a", "org/b") == 10


def test_only_what_is_needed(hub: Hub, tmp_path: Path, soup: Soup) -> None:
    """Weights in other forms, pictures, logs and other checkpoints stay on the Hub."""
    others = dict.fromkeys(
        ("pytorch_model.bin", "tf_model.h5", "model.fp16.safetensors", "onnx__model.onnx", "plot.png"), b"no weights"
    )
    others |= {"checkpoint-5__model.safetensors": b"", "runs__events.out.tfevents.1": b"", "optimizer.pt": b""}
    write(tmp_path / "one", 1, **others, **{"tokenizer.json": b"{}", "1_Pooling__config.json": b"[]"})
    hub.add("org/a", tmp_path / "one")
    ran = soup("uniform", "--ckpts", "org/a")
    assert ran.code == 0, ran.stderr
    wanted = ("1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json")
    assert hub.fetched == [f"org/a/{name}" for name in wanted]


def test_offline(hub: Hub, tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE: what was fetched once is taken from the cache, nothing is asked, and the rest is an error."""
    constants = pytest.importorskip("huggingface_hub.constants")
    commit = hub.add("org/a", write(tmp_path / "one", 1, **{"pytorch_model.bin": b"left on the hub"}))
    assert soup("uniform", "--ckpts", "org/a", "--out", "first").code == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    ran = soup("uniform", "--ckpts", "org/a", "--out", "second", "--json")
    assert ran.code == 0, ran.stderr
    assert json.loads(ran.stdout)["ingredients"][0]["revision"] == commit
    ran = soup("uniform", "--ckpts", "org/b", "--out", "third")
    assert ran.code == 2
    assert "org/b: no such file or folder, and HF_HUB_OFFLINE is set" in ran.stderr
    assert "hf download org/b" in ran.stderr
    assert hub.requests == []


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("org/absent", "org/absent: no such file or folder, and no such model on the Hub"),
        ("org/a@v9", "org/a@v9: the model has no such revision"),
        ("org/gated", "org/gated: is gated, and access was not granted"),
        ("org/empty", "org/empty: holds no weights that can be opened"),
        ("org/below", "org/below: its weights lie in sub-folders: final"),
    ],
)
def test_refused(hub: Hub, tmp_path: Path, soup: Soup, word: str, message: str) -> None:
    """Each is one line that names the model, with a way out, and exit code 2."""
    hub.add("org/a", write(tmp_path / "one", 1))
    hub.models["org/gated"] = Model(gated=True)
    hub.models["org/gated"].commit({})
    hub.models["org/empty"] = Model()
    hub.models["org/empty"].commit({"README.md": b"soon"})
    hub.models["org/below"] = Model()
    hub.models["org/below"].commit({"final/model.safetensors": b""})
    ran = soup("uniform", "--ckpts", word)
    assert ran.code == 2
    assert message in ran.stderr
    assert "hint:" in ran.stderr


def test_base_and_recipe(hub: Hub, tmp_path: Path, soup: Soup) -> None:
    """`ckpts:` and `base:` of a recipe in another folder may be models of the Hub; so may --base."""
    hub.add("org/a", write(tmp_path / "one", 1))
    hub.add("org/start", write(tmp_path / "two", 2))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/soup.yaml").write_text("ckpts: [org/a]\nbase: org/start\nmix: {alpha: 0.5}\nout: ../soup\n")
    ran = soup("mix", "--recipe", "recipes/soup.yaml", "--json")
    assert ran.code == 0, ran.stderr
    assert sorted(json.loads(ran.stdout)["soup"]["members"]) == ["org/a", "org/start"]


def test_folders_of_a_model(hub: Hub, tmp_path: Path, soup: Soup) -> None:
    """`org/a:checkpoint-1` is a folder of the model, fetched alone; the report and its check know the commit."""
    for step in (1, 2):
        write(tmp_path / f"one/runs/checkpoint-{step}", step, **{"tokenizer.json": b"{}"})
    commit = hub.add("org/a", tmp_path / "one")
    refused = soup("uniform", "--ckpts", "org/a")
    assert "org/a: its weights lie in sub-folders: runs/checkpoint-1, runs/checkpoint-2" in refused.stderr
    words = [f"org/a:runs/checkpoint-{step}" for step in (1, 2)]
    assert f"hint: --ckpts {' '.join(words)}" in refused.stderr
    absent = soup("uniform", "--ckpts", "org/a:nowhere")
    assert absent.code == 2 and "org/a:nowhere: has no folder nowhere" in absent.stderr
    hub.requests.clear()
    assert soup("uniform", "--ckpts", words[0], "--out", "one-of-them").code == 0
    assert {name.rpartition("/")[0] for name in hub.fetched} == {"org/a/runs/checkpoint-1"}
    ran = soup("uniform", "--ckpts", *words, "--json")
    assert ran.code == 0, ran.stderr
    assert {one["path"]: one["revision"] for one in json.loads(ran.stdout)["ingredients"]} == dict.fromkeys(
        words, commit
    )
    assert (tmp_path / "soup/tokenizer.json").is_file()
    assert "base_model:\n- org/a\n" in (tmp_path / "soup/README.md").read_text()
    write(tmp_path / "one/runs/checkpoint-1", 9)
    hub.add("org/a", tmp_path / "one")
    assert soup("verify", "soup", "--rebuild").code == 0


def adapter(folder: Path, seed: int) -> None:
    """A LoRA adapter of `org/start` at v1, as PEFT saves it."""
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "org/start", "revision": "v1"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(seed)
    factors = {"A": torch.randn(2, 4, generator=generator), "B": torch.randn(6, 2, generator=generator)}
    save_file(
        {f"base_model.model.0.lora_{name}.weight": factor for name, factor in factors.items()},
        folder / "adapter_model.safetensors",
    )


def test_base_of_adapters(hub: Hub, tmp_path: Path, soup: Soup) -> None:
    """The base that adapters name is fetched once, if a network is needed; the report has its commit."""
    commit = hub.add("org/start", write(tmp_path / "start", 7), branch="v1")
    for seed in range(2):
        adapter(tmp_path / f"runs/{seed}", seed)
    assert soup("uniform", "--ckpts", "runs/*/", "--out", "adapter").code == 0 and hub.requests == []
    ran = soup("uniform", "--ckpts", "runs/*/", "--merge-adapters", "--json")
    assert ran.code == 0, ran.stderr
    assert "the adapters' base is taken from the Hub: org/start@v1" in ran.stderr
    assert json.loads(ran.stdout)["recipe"]["base"] == f"org/start@{commit}"
    assert len([one for one in hub.requests if "model.safetensors" in one and one.startswith("GET")]) == 1
    start, found = small_net(7).state_dict(), load_file("soup/model.safetensors")
    changes = []
    for seed in range(2):
        a, b = load_file(f"runs/{seed}/adapter_model.safetensors").values()
        changes.append(2 * b.double() @ a.double())
    assert torch.equal(found["0.weight"], (start["0.weight"].double() + sum(changes) / 2).float())
    assert torch.equal(found["2.weight"], start["2.weight"])
    hub.add("org/start", write(tmp_path / "start", 8), branch="v1")
    ran = soup("verify", "soup", "--rebuild")
    assert ran.code == 0, ran.stdout


def test_paths_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there, lies in a folder that is there, or has a file's name, is a path; the rest are models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "a@b").mkdir()
    paths = (
        "runs",
        "runs/a",
        "x",
        "a/b/c",
        "/a/b",
        "./a",
        "../a",
        "a/../b",
        "a/b.pt",
        "a--b/c",
        "a/",
        "a/b@",
        "a/b@/x",
    )
    assert [word for word in paths if hub_reference(word) is not None] == []
    assert hub_reference("org/a.b-c_1") == Reference("org/a.b-c_1")
    assert hub_reference("org/a@refs/pr/1") == Reference("org/a", "refs/pr/1")
    assert hub_reference("runs/a@" + "0" * 40) == Reference("runs/a", "0" * 40)


def test_forms_of_weights() -> None:
    """The form that is opened, with all its shards; of an adapter its own; of several networks each one's."""

    def chosen(*names: str, weights_name: str | None = None) -> list[str]:
        return needed(Reference("org/a"), [HubFile(name, 1) for name in names], weights_name)

    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = "model.safetensors.index.json"
    assert chosen(index, *shards, "pytorch_model.bin") == sorted([index, *shards])
    assert chosen("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "model.safetensors") == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert chosen("modules.json", "pytorch_model.bin", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin") == [
        "2_Dense/model.safetensors",
        "modules.json",
        "pytorch_model.bin",
    ]
    assert chosen("a.ckpt", "b.txt", "optimizer.bin") == ["a.ckpt", "b.txt"]
    assert chosen("model.safetensors", "ema.safetensors", weights_name="ema.safetensors") == ["ema.safetensors"]
    with pytest.raises(CheckpointError, match="has no file x"):
        chosen("model.safetensors", weights_name="x")
    large = [HubFile("model.safetensors", 1), HubFile("corpus.txt", 1 << 40)]
    assert needed(Reference("org/a"), large) == ["model.safetensors"]


def test_without_the_extra(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    ran = soup("uniform", "--ckpts", "org/a")
    assert ran.code == 2
    assert "huggingface_hub" in ran.stderr
    assert "pip install 'model-soup[hub]'" in ran.stderr


def test_environment_variables(hub: Hub, tmp_path: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command itself, with HF_ENDPOINT and HF_HOME alone; bars are not drawn where stderr is a file."""
    hub.add("org/a", write(tmp_path / "one", 1))
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    monkeypatch.chdir(tmp_path)
    ran = warm.run("-m", "soupcli", "uniform", "--ckpts", "org/a", "--quiet", env=environment)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert (tmp_path / "home/hub/models--org--a/refs/main").is_file()


@pytest.mark.parametrize("commit", ["../../x", "/tmp/x", "", "a" * 41, "A" * 40])
def test_commits_that_are_none(hub: Hub, tmp_path: Path, soup: Soup, commit: str) -> None:
    """A commit is forty digits: a path in its place leads nowhere, and nothing is written."""
    model = hub.models["org/a"] = Model()
    model.commits[commit] = {"model.safetensors": (write(tmp_path / "one", 1) / "model.safetensors").read_bytes()}
    model.branches["main"] = commit
    before = sorted(tmp_path.rglob("*"))
    ran = soup("uniform", "--ckpts", "org/a", "--out", "soup")
    assert ran.code == 2 and f"org/a: the Hub names a commit {commit!r}" in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["../x.json", "/tmp/x.json", "a/../../x.json", "a\x1b[2J.json", "a\n::error::b.json", "a//b"]
)
def test_names_that_lead_out(hub: Hub, tmp_path: Path, soup: Soup, name: str) -> None:
    """A file's name stays within its model, and can be shown."""
    weights = (write(tmp_path / "one", 1) / "model.safetensors").read_bytes()
    hub.models["org/a"] = Model()
    hub.models["org/a"].commit({"model.safetensors": weights, name: b"{}"})
    before = sorted(tmp_path.rglob("*"))
    ran = soup("uniform", "--ckpts", "org/a", "--out", "soup")
    assert ran.code == 2 and "org/a: the Hub names a file '" in ran.stderr and "\x1b" not in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("etag", ['"../../../x"', '"/tmp/x"', "a" * 999])
def test_hashes_that_lead_out(hub: Hub, tmp_path: Path, soup: Soup, etag: str) -> None:
    """The name under which a file's content is kept is no path, either."""
    if not hasattr(sys.modules["huggingface_hub"], "set_client_factory"):
        pytest.skip("older versions do not ask through httpx")
    hub.add("org/a", write(tmp_path / "one", 1))
    hub.etag = etag
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    ran = soup("uniform", "--ckpts", "org/a", "--out", "soup")
    assert ran.code == 2 and "answers with" in ran.stderr and "no name of a file's content" in ran.stderr
    new = {file for file in tmp_path.rglob("*") if file.is_file()} - before
    assert all(file.is_relative_to(tmp_path / "cache") and not file.name.startswith("x") for file in new)


def test_very_many_files(hub: Hub, tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """More files than a model has are not fetched one by one: the error says how to fetch them."""
    hub.add("org/a", write(tmp_path / "one", 1, **{f"f{number}.json": b"{}" for number in range(9)}))
    monkeypatch.setattr("soupcli.checkpoints.hub.MOST_WANTED", 10)
    ran = soup("uniform", "--ckpts", "org/a", "--out", "soup")
    assert ran.code == 2 and "org/a: 11 files beside its weights, at most 10 are fetched" in ran.stderr
    assert "hf download org/a --local-dir DIR" in ran.stderr


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"packing": "gzip"}, "answers with Content-Encoding: 'gzip', which was not asked for"),
        ({"longer": "/api/"}, "goes on after 10000 bytes, at most 9999 are read"),
        ({"longer": "/resolve/"}, "goes on after 1000 bytes, the Hub lists "),
    ],
    ids=["compressed", "endless list", "endless file"],
)
def test_answers_that_do_not_end(
    hub: Hub, tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, answer: dict[str, str], message: str
) -> None:
    """A server sends no more than it has listed, and a list of files has a bound: what goes on is left."""
    if not hasattr(sys.modules["huggingface_hub"], "set_client_factory"):
        pytest.skip("older versions do not ask through httpx")
    hub.add("org/a", write(tmp_path / "one", 1))
    monkeypatch.setattr("soupcli.checkpoints.hub_answers.MOST_LISTED", 9_999)
    for name, value in answer.items():
        setattr(hub, name, value)
    ran = soup("uniform", "--ckpts", "org/a", "--out", "soup")
    assert ran.code == 2 and message in ran.stderr and "HF_ENDPOINT" in ran.stderr


@pytest.mark.parametrize(("least", "code"), [(1_000, 2), (10, 0)])
def test_a_slow_server(
    hub: Hub, tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, least: int, code: int
) -> None:
    """A file that comes byte by byte is waited for as long as it comes at the least rate, and no longer."""
    if not hasattr(sys.modules["huggingface_hub"], "set_client_factory"):
        pytest.skip("older versions do not ask through httpx")
    hub.add("org/a", write(tmp_path / "one", 1))
    hub.pause = 0.002
    monkeypatch.setattr("soupcli.checkpoints.hub_answers.SLOW_SECONDS", 0.1)
    monkeypatch.setattr("soupcli.checkpoints.hub_answers.LEAST_RATE", least)
    ran = soup("uniform", "--ckpts", "org/a", "--out", "soup")
    assert ran.code == code, ran.stderr
    if code:
        assert hub.endpoint in ran.stderr and "model.safetensors: sent " in ran.stderr and "run it again" in ran.stderr


def test_a_list_of_very_many_files(hub: Hub, tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of more files than a model has is refused before they are looked at."""
    hub.add("org/a", write(tmp_path / "one", 1, **{f"f{number}.json": b"{}" for number in range(9)}))
    monkeypatch.setattr("soupcli.checkpoints.hub.MOST_LISTED", 10)
    ran = soup("uniform", "--ckpts", "org/a", "--out", "soup")
    assert ran.code == 2 and "org/a: lists 11 files, at most 10 are looked at" in ran.stderr
