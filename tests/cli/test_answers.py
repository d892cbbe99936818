"""What computes no network ends without torch: errors, plans, kept scores, reports, means and what is verified."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm import create_model
from timm.models import save_for_hf

from tests.conftest import Ran
from tests.helpers.pictures import class_folders

ROOT = Path(__file__).parents[2]
RUNS = ("--ckpts", "runs/*/")
# Runs the commands one after another in one process; torch stays, once it is imported.
EACH = """
import json, os, sys
from soupcli.cli.app import run
for words in json.load(sys.stdin):
    code = run(words)
    os.write(3, (json.dumps([words, code, "torch" in sys.modules]) + "\\n").encode())
"""


def answers(*commands: tuple[str, ...], before: str = "") -> list[tuple[list[str], int, bool]]:
    """Words, exit code, and whether torch was imported by then. `before` is code that runs first."""
    read, write = os.pipe()
    try:
        subprocess.run(
            ["bash", "-c", f'exec "$0" -c "$1" 3>&{write}', sys.executable, before + EACH],
            input=json.dumps(commands),
            text=True,
            capture_output=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            pass_fds=[write],
            check=True,
        )
    finally:
        os.close(write)
    with os.fdopen(read) as told:
        return [tuple(json.loads(line)) for line in told]


def test_no_torch(family: Path) -> None:
    """Each of these ends as it should, and none of them imports torch, on a machine without other devices."""
    made = answers(  # in a process whose path is that of the ones below: kept scores depend on it
        ("rank", *RUNS, "--val", "val", "--report", "rank.json"), ("greedy", *RUNS, "--val", "val", "--quiet")
    )
    assert [code for _, code, _ in made] == [0, 0]
    state = load_file("runs/0/model.safetensors")
    state |= {f"rnn.weight_{place}": torch.full((4, 4), 0.5) for place in ("ih", "hh")}  # one may be the other's mask
    for name in ("pickled/a", "pickled/b", "narrow/a", "named/a"):
        Path(name).mkdir(parents=True)
    for name in ("a", "b"):
        torch.save({"state_dict": state}, f"pickled/{name}/model.pt")
    save_file({key: tensor[..., :1].contiguous() for key, tensor in state.items()}, "narrow/a/model.safetensors")
    save_file({f"other.{key}": tensor for key, tensor in state.items()}, "named/a/model.safetensors")
    Path("bad.yaml").write_text("modell: {}\n")
    refused = [
        ("rank", "--ckpts", "rums/*/", "--val", "val"),
        ("rank", *RUNS, "--val", "vall"),
        ("rank", *RUNS, "--val", "val", "--metric", "acuracy"),
        ("rank", *RUNS, "--val", "val", "--nonsense"),
        ("greedy", *RUNS, "--val", "val", "--recipe", "bad.yaml"),
        ("greedy", *RUNS, "--val", "val", "--set", "greedy.acept=>"),
        ("uniform", "--ckpts", "runs/0", "narrow/a"),
        ("uniform", "--ckpts", "runs/0", "named/a"),
        ("mix", *RUNS, "--weights", "1,2"),
        ("verify", "nowhere/"),
        ("report", "nowhere.json"),
        ("inspect", "--ckpts", "rums/*/"),
        ("demo", "digit"),
        ("sup",),
    ]
    done = [
        ("greedy", *RUNS, "--val", "val", "--out", "new", "--dry-run"),
        ("uniform", *RUNS, "--out", "new", "--dry-run"),
        ("uniform", "--ckpts", "pickled/*/", "--out", "new", "--dry-run"),
        ("learned", *RUNS, "--val", "val", "--out", "new", "--dry-run"),
        ("init", "--out", "found.yaml", "--force"),
        ("schema", "recipe"),
        ("schema", "report"),
        ("verify", "soup/"),
        ("report", "soup/soup.json", "rank.json"),
        ("rank", *RUNS, "--val", "val"),
        ("rank", *RUNS, "--val", "val", "--json"),
        ("uniform", *RUNS, "--out", "mean"),
        ("uniform", "--ckpts", "pickled/*/", "--out", "of-pickles", "--dtype", "bfloat16"),
        ("mix", "--ckpts", "runs/0", "runs/1", "--weights", "0.3,0.7", "--out", "mixed"),
        ("verify", "mean/", "--rebuild"),
        ("inspect", *RUNS),
        ("inspect", *RUNS, "--base", "runs/0", "--json"),
        ("inspect", "--ckpts", "pickled/*/"),
    ]
    found = answers(*refused, *done)
    assert [(words, code) for words, code, _ in found if code != (2 if tuple(words) in refused else 0)] == []
    assert next((words for words, _, with_torch in found if with_torch), None) is None
    assert len(found) == len(refused) + len(done)


SETS = """
model: {timm: test_vit, args: {num_classes: 2}}
val:
  folders: {images: pictures}
  table: {images: pictures, labels: pictures.csv}
  rows: {images: pictures, labels: rows.csv, metric: map}
  several: {images: pictures, labels: several.json}
  numbers: {text: numbers.csv, input: [text], label: label}
  names: {text: names.jsonl, input: [text], label: label, labels: [a, b]}
  columns: {text: numbers.csv, input: [text], label: [a, b], metric: map}
  tokens: {tokens: text.txt, context: 4}
metric: accuracy
"""


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of a small network of timm, and sets of every kind that says which class is which, in soup.yaml."""
    monkeypatch.chdir(tmp_path)
    labelled = {str(file.relative_to("pictures")): c for file, c in class_folders(Path("pictures"), {"a": 2, "b": 2})}
    Path("pictures.csv").write_text("file,label\n" + "".join(f"{name},{c}\n" for name, c in labelled.items()))
    Path("rows.csv").write_text("file,a,b\n" + "".join(f"{name},1,{c}\n" for name, c in labelled.items()))
    Path("several.json").write_text(json.dumps({name: [0, 1] for name in labelled}))
    Path("numbers.csv").write_text("text,label,a,b\none,0,1,0\ntwo,1,0,1\n")
    Path("names.jsonl").write_text('{"text": "one", "label": "b"}\n{"text": "two", "label": "a"}\n')
    Path("text.txt").write_text("one two three\n")
    Path("soup.yaml").write_text(SETS)
    for seed in range(2):
        torch.manual_seed(seed)
        save_for_hf(create_model("test_vit", num_classes=2), f"runs/{seed}", safe_serialization=True)


def test_sets_without_torch(sets: None) -> None:
    """A plan says the order of classes in a set of any kind, and a rank whose scores are kept repeats them."""
    every = ("folders", "table", "rows", "several", "numbers", "names", "columns", "tokens")
    plans = [("greedy", *RUNS, "--val", name, "--out", "new", "--dry-run") for name in every]
    assert [(words, code, with_torch) for words, code, with_torch in answers(*plans) if code or with_torch] == []
    rank = ("rank", *RUNS, "--val", "folders")
    assert [code for _, code, _ in answers(rank)] == [0]
    assert [(code, with_torch) for _, code, with_torch in answers(rank)] == [(0, False)]


def test_kept_scores_without_numpy(family: Path) -> None:
    """A rank whose scores are kept looks at the first numbers of the weights by itself."""
    words = ("rank", *RUNS, "--val", "val", "--report", "rank.json")
    assert [code for _, code, _ in answers(words)] == [0]
    broken = "import sys; sys.modules['numpy'] = None"
    assert [(code, with_torch) for _, code, with_torch in answers(words, before=broken)] == [(0, False)]


def alike(one: Any, other: Any) -> bool:
    """Whether two parts of reports are equal, numbers up to rounding."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-6, abs=1e-3)  # degrees; a small angle is the root of a difference
    return bool(one == other)


def test_inspect_without_numpy(family: Path) -> None:
    """torch, where numpy cannot be imported, finds the same distances, angles and verdicts."""
    state = load_file("runs/0/model.safetensors")
    strangers = {key: tensor.flip(0) if tensor.dim() > 1 else tensor for key, tensor in state.items()}
    halves = {key: tensor.half() for key, tensor in state.items()}
    broken = {key: tensor / 0 for key, tensor in state.items()}
    for name, its in (("strangers", strangers), ("halves", halves), ("broken", broken)):
        Path("runs", name).mkdir()
        save_file({key: tensor.contiguous() for key, tensor in its.items()}, Path("runs", name, "model.safetensors"))
    words = ("inspect", *RUNS, "--base", "runs/1")
    assert not answers((*words, "--report", "numpy.json"))[0][2]
    assert answers((*words, "--report", "torch.json"), before="import sys; sys.modules['numpy'] = None")[0][2]
    by_numpy, by_torch = (json.loads(Path(f"{one}.json").read_text())["inspection"] for one in ("numpy", "torch"))
    assert by_numpy["duplicates"] and by_numpy["not_finite"] and by_numpy["verdicts"]
    assert alike(by_numpy, by_torch)


class Unwanted:
    """A finder that fails when one of the modules is looked for."""

    MODULES = ("sympy", "torch._dynamo", "torch.fx.experimental.symbolic_shapes")

    @classmethod
    def find_spec(cls, name: str, *_: object) -> None:
        assert name not in cls.MODULES, f"{name} is imported"


def test_no_compiler(family: Path, soup: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluating and learning import neither torch's compiler nor sympy, which take seconds."""
    for name in Unwanted.MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Unwanted, *sys.meta_path])
    for words in (("rank",), ("learned", "--set", "learned.steps=1")):
        ran = soup(words[0], *RUNS, "--val", "val", *words[1:])
        assert ran.code == 0, ran.stderr
    with pytest.raises(AssertionError, match="sympy is imported"):
        importlib.import_module("sympy")
