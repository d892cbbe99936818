"""Fixtures that many tests share: a cache of their own, small families of ingredients, the command line in process."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import save_file
from torch import Tensor, nn

from soupcli.cli import signals
from soupcli.cli.app import run
from soupcli.user_code import modules as user_modules
from soupcli.user_code import notes as user_notes
from soupcli.user_code import projects as user_projects
from tests.helpers.warm import Warm

# The same examples each time, as all tests are seeded; a slow machine is no failure.
settings.register_profile("seeded", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("seeded")

NET = """
from torch import nn

def build(width=16):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
"""


LONG = ("tests/torture/", "tests/docs/", "tests/test_processes.py")


def pytest_configure() -> None:
    """Programs that tests start keep what they compile, as everywhere else, even if whoever runs the tests does not."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests come first, so that all workers end at one time."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported is there to stay: the garbage collector looks through it neither meanwhile nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Libraries look at their end for what was not collected."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees scores or hashes of another, and no SOUP_ variable of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("SOUP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SOUP_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    """No test sees what modules of an earlier one's recipe read: with every score all that are loaded are looked at."""
    yield
    user_modules.forget()
    user_projects._aside.clear()
    for kind in user_notes.KINDS:
        user_notes.forget(kind)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


def build_net(width: int = 16) -> nn.Sequential:
    """The network of `NET`."""
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))


def write_family(folder: Path, *, members: int = 5, seed: int = 0, multilabel: bool = False) -> list[dict[str, Tensor]]:
    """A folder in which `soup greedy --ckpts runs/*/ --val val` runs: net.py, soup.yaml, runs/*/, data/*.safetensors.

    The ingredients are one network, trained for real on a small task, then trained on with different seeds and rates.
    Examples have one of three classes, or any of them if they are `multilabel`. Returns the state dicts in the order of
    their paths.
    """
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(8, 3, generator=generator)
    inputs = torch.randn(900, 8, generator=generator)
    noisy = inputs @ teacher + torch.randn(900, 3, generator=generator)
    labels = (noisy > 1).to(torch.uint8) if multilabel else noisy.argmax(dim=1)
    (folder / "data").mkdir(parents=True)
    for name, part in {"val": slice(0, 200), "test": slice(200, 500)}.items():
        save_file({"inputs": inputs[part].clone(), "labels": labels[part].clone()}, folder / f"data/{name}.safetensors")
    (folder / "net.py").write_text(NET)
    (folder / "soup.yaml").write_text(
        'model: {python: "net.py:build"}\nval:\n  val: {arrays: data/val.safetensors}\n'
        "  test: {arrays: data/test.safetensors}\n"
        f"metric: {'map' if multilabel else 'accuracy'}\n"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        start = train(build_net(), inputs[500:], labels[500:], steps=40, lr=1e-2, seed=seed)
        states = []
        for number in range(members):
            net = build_net()
            net.load_state_dict(start.state_dict())
            train(net, inputs[500:], labels[500:], steps=15, lr=(3e-3, 1e-2, 3e-2)[number % 3], seed=number + 1)
            state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
            (folder / f"runs/{number}").mkdir(parents=True)
            save_file(state, folder / f"runs/{number}/model.safetensors")
            states.append(state)
    return states


def train(net: nn.Sequential, inputs: Tensor, labels: Tensor, *, steps: int, lr: float, seed: int) -> nn.Sequential:
    """A few steps of AdamW on random batches."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr)
    for _ in range(steps):
        batch = torch.randint(0, len(inputs), (32,), generator=generator)
        if labels.dim() == 2:
            loss = nn.functional.binary_cross_entropy_with_logits(net(inputs[batch]), labels[batch].float())
        else:
            loss = nn.functional.cross_entropy(net(inputs[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


@pytest.fixture(scope="session")
def _trained_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "family"
    write_family(folder)
    return folder


@pytest.fixture
def family(_trained_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of one family (see write_family), and the working folder in it."""
    return _in_a_copy(_trained_family, tmp_path / "family", monkeypatch)


def _in_a_copy(of: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(of, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Starts processes that have torch imported already."""
    with Warm() as python:
        yield python


class Ran:
    """What a command left behind."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr


@pytest.fixture(scope="session")
def _souped_family(_trained_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("souped") / "family"
    shutil.copytree(_trained_family, folder)
    shared = ("--ckpts", "runs/*/", "--val", "val", "test", "--quiet")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOUP_CACHE", str(tmp_path_factory.mktemp("cache")))
        assert run(["greedy", *shared, "--with-uniform"]) == 0
        assert run(["rank", *shared, "--report", "rank.json"]) == 0
    return folder


@pytest.fixture
def souped(_souped_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of `family` with its greedy soup in soup/ and rank.json, and the working folder in it."""
    return _in_a_copy(_souped_family, tmp_path / "family", monkeypatch)


@pytest.fixture
def soup(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `soup WORDS...` in this process, as the console script would: soup("rank", "--ckpts", "runs/*/")."""

    def invoke(*words: str) -> Ran:
        capfd.readouterr()
        signals._told.clear()  # an interruption is told once a process, here once a command
        code = run([str(word) for word in words])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return invoke


Together = Callable[..., Ran]


@pytest.fixture
def together(warm: Warm) -> Together:
    """Runs `soup WORDS...` in COUNT processes as torchrun does: the first code that is not 0, all that they said."""

    def run(count: int, *words: str) -> Ran:
        codes, stdout, stderr = warm.world(count, "-m", "soupcli", *words)
        return Ran(next(filter(None, codes), 0), stdout, stderr)

    return run


@pytest.fixture(scope="session")
def saved_by_two(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes saved, each its part of every tensor: folders 0 and 1 of tests.helpers.save_distributed."""
    folder = tmp_path_factory.mktemp("two")
    codes, _, stderr = warm.world(2, "-m", "tests.helpers.save_distributed", str(folder / "0"), str(folder / "1"))
    assert codes == [0, 0], stderr
    return folder
