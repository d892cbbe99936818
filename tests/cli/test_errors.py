"""Every error is one line that names file, key or tensor and both values, then a hint; exit codes say whose it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupcli.evaluation.evaluators import Evaluators
from soupcli.mixing import sums
from tests.conftest import Ran

Soup = Callable[..., Ran]
GREEDY = ["greedy", "--ckpts", "runs/*/", "--val", "val"]


def write(path: str, **changes: Tensor | None) -> None:
    """The ingredient `path` with tensors changed (`_` stands for `.`), None: without that tensor."""
    file = f"{path}/model.safetensors"
    state = load_file(file) | {name.replace("_", "."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, file)


def refused(soup: Soup, *words: str) -> str:
    """stderr of a command that is the user's mistake; stdout stays empty and nothing is written."""
    ran = soup(*words)
    assert (ran.code, ran.stdout) == (2, ""), ran.stderr
    assert not Path("soup").exists()
    return ran.stderr


COMMANDS = [["uniform", "--ckpts", "runs/*/"], ["rank", "--ckpts", "runs/*/", "--val", "val"], GREEDY]


def test_the_contracts_example(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that differs is told to the letter of the contract."""
    monkeypatch.chdir(tmp_path)
    for run, classes in (("a", 12), ("b", 10)):
        Path(f"runs/{run}").mkdir(parents=True)
        save_file({"head.weight": torch.zeros(classes, 64)}, f"runs/{run}/model.safetensors")
    ran = soup("uniform", "--ckpts", "runs/*/")
    message, hint = ran.stderr.split("\n\n")
    assert message == "runs/b/model.safetensors: tensor 'head.weight' has shape [10, 64], runs/a has [12, 64]"
    assert hint.startswith("hint: ") and hint.count("\n") == 1
    assert (ran.code, ran.stdout) == (2, "")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_checkpoints_that_cannot_be_mixed(family: Path, soup: Soup, words: list[str]) -> None:
    """Every command that mixes or ranks says so from the headers: a missing, an additional, another kind of tensor."""
    write("runs/3", **{"2_bias": None})
    assert refused(soup, *words).startswith("runs/3/model.safetensors: has no tensor '2.bias', runs/0 has")
    write("runs/3", **{"2_bias": torch.zeros(3, dtype=torch.int32)})
    assert "tensor '2.bias' has dtype torch.int32, runs/0 has torch.float32\n" in refused(soup, *words)
    write("runs/3", **{"2_bias": torch.zeros(3), "extra": torch.zeros(1)})
    assert refused(soup, *words).startswith("runs/3/model.safetensors: has tensor 'extra', runs/0 has not")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nan_in_an_ingredient(family: Path, soup: Soup, words: list[str], bad: float) -> None:
    """A NaN or infinity is an error that names the ingredient and the tensor."""
    weight = load_file("runs/2/model.safetensors")["0.weight"]
    weight[3, 5] = bad
    write("runs/2", **{"0_weight": weight})
    line, _, hint = refused(soup, *words).strip().rpartition("\n\n")
    assert "runs/2/model.safetensors: tensor '0.weight' holds " in line
    assert hint == "hint: its training diverged: leave this ingredient out"


def test_weights_that_do_not_fit_the_network(family: Path, soup: Soup) -> None:
    """A network of another shape, or with other names, is told with the tensor, both values and a hint."""
    hint = "\n\nhint: model: in the recipe must build the network that these weights were saved from\n"
    narrow = refused(soup, *GREEDY, "--set", "model.args.width=8")
    assert narrow.endswith(f"has shape [16], the network Sequential has [8]{hint}")
    for number in range(5):
        write(f"runs/{number}", extra=torch.zeros(1))
    message = "runs/0/model.safetensors: has tensor 'extra', which the network Sequential has no place for"
    assert refused(soup, *GREEDY) == message + hint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "soup rank: needs --val\n\nhint: name a set of the recipe: val, test\n"),
        (["--val", "vall"], "--val vall: neither a set of the recipe nor a path, did you mean 'val'?\n\nhint: "),
        (["--val", "net.py"], "--val net.py: a set is a folder of class folders, or a file that ends in .tar, .jsonl,"),
        (["--val", ""], "--val: an empty word\n\nhint: is a shell variable unset?\n"),
        (["--val"], "--val: needs at least one value\n\nhint: did a glob match nothing?\n"),
        (["--val", "val", "--metric", "acuracy"], "--metric: 'acuracy' is not known, did you mean 'accuracy'?\n\nhint"),
        (["--val", "val", "--device", "gpu"], "--device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'\n"),
        (["--val", "val", "--device", "cuda:99"], "--device cuda:99: this machine has "),
        (["--val", "val", "--batch-size", "0"], "--batch-size: expected more than 0, got 0\n"),
        (["--val", "val", "--set", "gredy.x=1"], "--set gredy.x: unknown key, did you mean 'greedy'?\n"),
        (["--val", "val", "--set", "x"], "--set x: expected KEY=VALUE\n\nhint: e.g. --set greedy.min_delta=0.001\n"),
        (["--val", "val", "-r", "no.yaml"], "no.yaml: No such file or directory\n\nhint: soup init writes a recipe\n"),
        (["--val", "val", "--report", "net.py/x"], "net.py/x: nothing can be written in net.py\n"),
        (["--val", "val", "--report", "runs"], "runs: is a folder, a file was expected\n"),
        (["--val", "val", "--set", "model.python=no.py:f"], "no.py: "),
        (["--val", "val", "--set", "model.python=net.py:buld"], "net.py: has no function 'buld'"),
    ],
    ids=" ".join,
)
def test_mistakes(family: Path, soup: Soup, words: list[str], message: str) -> None:
    """Each mistake on the command line is told by one line, with what was meant or what is there."""
    assert refused(soup, "rank", "--ckpts", "runs/*/", *words).startswith(message)


def test_typers_own_errors(family: Path, soup: Soup) -> None:
    """Unknown commands, options and bad numbers are usage errors too: exit code 2, with the nearest name."""
    assert "did you mean 'rank'?" in refused(soup, "rnak")
    assert "--ckpts" in refused(soup, "rank", "--ckpt", "runs/0")
    assert "soup rank: --batch-size: " in refused(
        soup, "rank", "--ckpts", "runs/0", "--val", "val", "--batch-size", "x"
    )
    assert "requires an argument" in refused(soup, "rank", "--metric")
    assert refused(soup).startswith("Usage: soup ")


def test_recipe_errors(family: Path, soup: Soup) -> None:
    """A recipe's problems are told all at once, each with file, line, column and key."""
    Path("soup.yaml").write_text("metrics_: 1\nlearned:\n  per: laier\nmetric: nll\nmetric: nll\n")
    assert refused(soup, *GREEDY).splitlines() == [
        "soup.yaml:1:1: metrics_: unknown key, did you mean 'metrics'?",
        "soup.yaml:3:8: learned.per: expected 'model', 'layer' or 'tensor', got 'laier', did you mean 'layer'?",
        "soup.yaml:5:1: metric: given twice, first at soup.yaml:4:1",
        "",
        "hint: soup schema recipe describes every key",
    ]


def test_names_in_the_recipe(family: Path, soup: Soup) -> None:
    """A metric or network that the recipe names and nobody knows is told with its place and the nearest name."""
    pytest.importorskip("timm")
    text = Path("soup.yaml").read_text()
    Path("soup.yaml").write_text(text.replace("accuracy", "acuracy"))
    assert refused(soup, *GREEDY).startswith("soup.yaml:5:9: metric: 'acuracy' is not known, did you mean 'accuracy'?")
    Path("soup.yaml").write_text(text.replace('{python: "net.py:build"}', "{timm: resnet5}"))
    found = refused(soup, *GREEDY)
    assert found.startswith("soup.yaml:1:15: model.timm: timm ") and "did you mean 'resnet50'?" in found


def test_extra_that_is_not_installed(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not there is named with the command that installs it."""
    monkeypatch.setitem(sys.modules, "timm", None)
    found = refused(soup, *GREEDY, "--set", "model={timm: resnet18}")
    assert found == "timm is not installed\n\nhint: pip install 'model-soup[timm]'\n"


def test_extra_that_is_broken(family: Path, tmp_path: Path) -> None:
    """A package that is there and does not import, as one beside another torch, is told with its own reason."""
    broken = tmp_path / "site/timm"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')\n")
    ran = subprocess.run(
        [sys.executable, "-m", "soupcli", *GREEDY, "--set", "model={timm: resnet18}"],
        env=os.environ | {"PYTHONPATH": f"{broken.parent}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "timm does not import: operator torchvision::nms does not exist\n\nhint: pip install 'model-soup[timm]'\n"
    )


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose reading of tensors is broken."""

    def read(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(sums, "read_into", read)


def test_no_thread_can_be_started(family: Path) -> None:
    """At the system's limit of processes a command says so, from its first thread on."""
    code = (
        "import threading\n"
        'def refused(*_, **__): raise RuntimeError("can\'t start new thread")\n'
        "threading._start_new_thread = refused\n"
        "from soupcli.cli.app import main\n"
        "main()"
    )
    words = ["uniform", "--ckpts", "runs/0", "runs/1"]
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert ran.stderr.startswith("the system refuses: can't start new thread\n\nhint: ")


@pytest.mark.usefixtures("faulty")
def test_fault(family: Path, soup: Soup) -> None:
    """A fault of ours ends with 3 and one line; no traceback, no soup, nothing on stdout."""
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert (ran.code, ran.stdout) == (3, "")
    line, hint = ran.stderr.split("\n\n")
    assert line.startswith("internal error: ZeroDivisionError: division by zero (test_errors.py:")
    assert hint == "hint: this is a fault of soup: SOUP_DEBUG=1 shows the traceback to report\n"
    assert sorted(entry.name for entry in family.iterdir()) == ["data", "net.py", "runs", "soup.yaml"]


@pytest.mark.usefixtures("faulty")
def test_fault_with_traceback(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOUP_DEBUG=1 shows the traceback before the line."""
    monkeypatch.setenv("SOUP_DEBUG", "1")
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 3
    assert ran.stderr.startswith("Traceback (most recent call last):\n")
    assert "internal error: ZeroDivisionError" in ran.stderr.splitlines()[-3]


def test_interrupted(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and one line; what was evaluated is kept, and the same command goes on from there."""
    measure, calls = Evaluators._measure, iter(range(100))

    def interrupted(*arguments: object, **more: object) -> object:
        if next(calls) == 7:
            raise KeyboardInterrupt
        return measure(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluators, "_measure", interrupted)
    ran = soup(*GREEDY)
    assert (ran.code, ran.stdout) == (130, "")
    last = "interrupted: what was evaluated is kept, the same command goes on from there"
    assert ran.stderr.splitlines()[-1] == last
    again = soup(*GREEDY, "--json")
    assert again.code == 0
    steps = json.loads(again.stdout)["steps"]
    assert [step["examples"] > 0 for step in steps] == [False] * 3 + [True] * 2


def test_full_disk(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room is told before anything is written."""
    usage = shutil.disk_usage(family)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert ": 10 bytes are free, the soup needs " in refused(soup, "uniform", "--ckpts", "runs/*/")
