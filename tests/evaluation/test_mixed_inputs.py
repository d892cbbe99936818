"""What changes while a run reads it leaves no kept score: that is an error, and undone it is evaluated anew."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import SoupError
from soupcli.mixing.mixture import Mixture
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
            change()
        found = function(*given, **named)
        if after:
            change()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, changed)
        yield


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
    changed = meanwhile("soupcli.datasets.images._decoded", lambda: picture.write_bytes(before[:-9] + bytes(9)))
    with changed, pytest.raises(SoupError, match="changed while"):
        score(recipe, Path("run"))
    picture.write_bytes(before)
    found = evaluators(recipe, Path("run"))
    assert found.on("val")(Mixture.uniform([open_checkpoint(Path("run"))])).examples == 2
    assert (found.inputs.decoded, found.inputs.cached) == (2, 0)
