"""What changes while a run reads it leaves no kept score: that is an error, and undone it is evaluated anew."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import SoupError
from soupcli.evaluation.context import made_manifest
from soupcli.evaluation.evaluators import Evaluators
from soupcli.evaluation.kept_scores import ScoreStore
from soupcli.evaluation.score import Score
from soupcli.mixing.mixture import Mixture
from soupcli.progress import unsaid
from soupcli.user_code.hooks import unheard
from tests.helpers.evaluators import evaluators, score

NETWORK = "soupcli.evaluation.runner.build"
FUNCTION = "soupcli.evaluation.outside.user_function.score"
MINE = """
from pathlib import Path

def evaluate(model, device):
    return {"accuracy": len(Path("da" + "ta.txt").read_text()) / 100, "n": 1}
"""


@contextmanager
def meanwhile(where: str, change: Callable[[], object], *, after: bool = False) -> Iterator[None]:
    """Within the block somebody makes the change right before the function is called, or right `after` it returns."""
    module, _, name = where.rpartition(".")
    owner = importlib.import_module(module)
    function = getattr(owner, name)

    def changed(*given: Any, **named: Any) -> Any:
        if not after:
            made()
        found = function(*given, **named)
        if after:
            made()
        return found

    def made() -> None:
        with unheard():  # these tests are no code of the user's
            change()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, changed)
        yield


def watched(recipe: dict[str, Any], *, warn: Callable[[str], None] = unsaid) -> Score:
    """The score of the first ingredient in a run of its own, which records what the user's code reads."""
    return run_of(recipe, warn=warn).on("val")(Mixture.uniform([open_checkpoint(Path("runs/0"))]))


def run_of(recipe: dict[str, Any], *, warn: Callable[[str], None] = unsaid) -> Evaluators:
    """The evaluators of a run."""
    manifest = made_manifest()
    found = evaluators(recipe, Path("runs/0"))
    store = ScoreStore(found.context.store.folder, inputs=manifest)
    return Evaluators(dataclasses.replace(found.context, manifest=manifest, store=store, warn=warn))


def in_place(file: Path) -> None:
    """Other weights of the same size, written into the file, with the time of before."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(-400, os.SEEK_END)
        opened.write(bytes(range(100)) * 4)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, tuple[str, dict[str, Any], Callable[[], object]]] = {
    "weights": (NETWORK, {"arrays": "data/val.safetensors"}, lambda: in_place(Path("runs/0/model.safetensors"))),
    "a file beside them": (
        NETWORK,
        {"arrays": "data/val.safetensors"},
        lambda: Path("runs/0/config.json").write_text("{}"),
    ),
    "a file of depends:": (
        FUNCTION,
        {"python": "mine.py:evaluate", "metric": "accuracy", "depends": ["more"]},
        lambda: Path("more/a.txt").write_text("two"),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_is_not_kept(family: Path, what: str) -> None:
    """Undone, it is evaluated, and not served from what the run with both states has left behind."""
    where, spec, change = CHANGES[what]
    Path("mine.py").write_text(MINE)
    Path("data.txt").write_text("one")
    Path("more").mkdir()
    Path("more/a.txt").write_text("one")
    recipe = {"model": {"python": "net.py:build"}, "val": {"val": spec}}
    shutil.copytree(family, family.parent / "before")
    with meanwhile(where, change), pytest.raises(SoupError, match="changed while"):
        score(recipe, Path("runs/0"), cache=Path("cache").absolute())
    for folder in ("runs", "more"):
        shutil.rmtree(folder)
        shutil.copytree(family.parent / "before" / folder, folder)
    assert score(recipe, Path("runs/0"), cache=Path("cache").absolute()).examples > 0


SEES = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 2))

def transform(picture):
    return torch.tensor(picture.getpixel((0, 0)))[:, None, None] / 255
"""


def test_a_picture_changes_while_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decoded of both states is not kept either."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(SEES)
    for label in "ab":
        Path(f"val/{label}").mkdir(parents=True)
        Image.new("RGB", (2, 2), (9, 9, 9)).save(f"val/{label}/0.bmp")
    Path("run").mkdir()
    save_file({"1.weight": torch.zeros(2, 3), "1.bias": torch.zeros(2)}, "run/model.safetensors")
    picture = Path("val/a/0.bmp")
    before = picture.read_bytes()
    recipe = {
        "model": {"python": "net.py:build", "transform": "net.py:transform"},
        "val": {"val": {"images": Path("val")}},
    }
    changed = meanwhile("soupcli.datasets.images.decoded", lambda: picture.write_bytes(before[:-9] + bytes(9)))
    with changed, pytest.raises(SoupError, match="changed while"):
        score(recipe, Path("run"))
    picture.write_bytes(before)
    found = evaluators(recipe, Path("run"))
    assert found.on("val")(Mixture.uniform([open_checkpoint(Path("run"))])).examples == 2
    assert (found.inputs.decoded, found.inputs.cached) == (2, 0)


PROGRAM = """
import json
from pathlib import Path
print(json.dumps({"accuracy": len(Path("da" + "ta.txt").read_text()) / 100, "n": 1}))
"""


def put_back() -> None:
    """Other numbers of the same size, with the time of before."""
    before = Path("data.txt").stat()
    Path("data.txt").write_text("2  ")
    os.utime("data.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(("change", "value"), [(lambda: Path("data.txt").write_text("longer"), 0.06), (put_back, 0.01)])
def test_a_file_that_a_function_has_read(change: Callable[[], object], value: float, family: Path) -> None:
    """Somebody writes to a file after the function has read it, before its score is kept."""
    Path("mine.py").write_text(MINE.replace("read_text()", "read_text().rstrip()"))
    Path("data.txt").write_text("one")
    recipe = {"model": {"python": "net.py:build"}, "val": {"val": {"python": "mine.py:evaluate", "metric": "accuracy"}}}
    changed = meanwhile(FUNCTION, change, after=True)
    with changed, pytest.raises(SoupError, match=r"data\.txt: changed while it was used"):
        watched(recipe)
    assert watched(recipe).value == value


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_a_program_reads(family: Path, when: str) -> None:
    """Somebody writes to a file while a program runs, before or after it reads it: the score is of what was read."""
    Path("mine.py").write_text(PROGRAM)
    Path("data.txt").write_text("one")
    recipe = {"val": {"val": {"command": f"{sys.executable} mine.py {{checkpoint}}", "metric": "accuracy"}}}
    said: list[str] = []
    before, after = "soupcli.user_code.notes.environment_of_command", "soupcli.evaluation.outside.command.result"
    where = before if when == "before" else after
    with meanwhile(where, lambda: Path("data.txt").write_text("longer"), after=True):
        assert watched(recipe, warn=said.append).value == (0.06 if when == "before" else 0.03)
    assert [f"val.val: {family}/data.txt changes while a program uses it" in one for one in said] == [True] * (
        when == "after"
    )
    assert watched(recipe).value == 0.06
    assert watched(recipe).examples == 0
    Path("data.txt").write_text("longest")
    assert watched(recipe).value == 0.07


def test_a_file_that_was_read_when_a_module_was_imported(family: Path) -> None:
    """A second run in the same process runs the module again if the file has changed since."""
    Path("mine.py").write_text(
        MINE.replace("def evaluate", "TEXT = Path('da' + 'ta.txt').read_text()\n\ndef evaluate").replace(
            'Path("da" + "ta.txt").read_text()', "TEXT"
        )
    )
    Path("data.txt").write_text("one")
    recipe = {"model": {"python": "net.py:build"}, "val": {"val": {"python": "mine.py:evaluate", "metric": "accuracy"}}}
    assert watched(recipe).value == 0.03
    Path("data.txt").write_text("longer")
    assert watched(recipe).value == 0.06


def test_a_clock_that_is_behind(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a server whose clock is ahead seem to change while the run goes on: they count all the same."""
    monkeypatch.setattr("soupcli.user_code.files.time", SimpleNamespace(time_ns=lambda: 0))
    Path("mine.py").write_text(
        "import os, torch\n\n"
        "def evaluate(model, device):\n"
        "    number = int(torch.from_file('number.bin', size=1, dtype=torch.int64))  # opened outside of Python\n"
        "    return {'accuracy': (10 * number + os.path.isfile('more')) / 100, 'n': 1}\n"
    )
    recipe = {"model": {"python": "net.py:build"}, "val": {"val": {"python": "mine.py:evaluate", "metric": "accuracy"}}}
    Path("number.bin").write_bytes(bytes([1] + 7 * [0]))
    assert [watched(recipe).value, watched(recipe).examples] == [0.1, 0]
    Path("number.bin").write_bytes(bytes([2] + 7 * [0]))
    assert [watched(recipe).value, watched(recipe).examples] == [0.2, 0]
    Path("more").touch()
    assert [watched(recipe).value, watched(recipe).examples] == [0.21, 0]


def test_a_file_that_a_command_makes(family: Path) -> None:
    """What a program writes and a Python behind it reads is no input once it varies: one score is asked for again."""
    Path("mine.py").write_text(PROGRAM)
    Path("run.sh").write_text(f"echo $1 >> $(echo da)ta.txt\n{sys.executable} mine.py\n")
    recipe = {"val": {"val": {"command": "sh run.sh {checkpoint}", "metric": "accuracy"}}}
    runs = [Mixture.uniform([open_checkpoint(Path(f"runs/{number}"))]) for number in range(2)]
    counts = []
    for _ in range(3):
        found = run_of(recipe)
        for mixture in runs:
            found.on("val")(mixture)
        counts.append(found.examples)
    assert counts == [2, 1, 0]
