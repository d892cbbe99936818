"""A kept score is served only if nothing that it depends on has changed: any one input is changed at random."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Ran

Soup = Callable[..., Ran]

NET = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
import os
import subprocess
import helper
import torch
from torch import nn

class Net(nn.Linear):
    def forward(self, x):
        return helper.SIGN * super().forward(x.float().flatten(1))

def build():
    return Net(12, 2)

def transform(picture):
    picture = picture.resize((2, 2))
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return (values.view(2, 2, 3).permute(2, 0, 1) // int(Path("scale.txt").read_text())).contiguous()

def evaluate(model, device):
    words = Path("words.json").read_text()
    number = int(torch.from_file("tables/number.bin", size=1, dtype=torch.int64))  # opened outside of Python
    line = subprocess.check_output("cat 'shell.txt'|head -1", shell=True)
    line += subprocess.check_output(["sh", "tool.sh"])  # which reads a file by itself
    line += subprocess.check_output(["cat", "in.txt"], cwd="tables")
    line += b"." * Path("extra.txt").exists() + b"." * os.path.isdir("more") + os.readlink("latest").encode()
    variables = os.getenv("SPLIT", "") + os.environ.get("OF_" + "THE_RUN", "")
    return {"accuracy": 1 / (len(words) + number + len(line) + len(variables)), "n": 1}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of the user's with a helper, a data file, pictures and a function."""
    monkeypatch.setenv("SPLIT", "a")
    monkeypatch.delenv("OF_THE_RUN", raising=False)
    monkeypatch.chdir(tmp_path)
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    Path("tables").mkdir()
    Path("tables/number.bin").write_bytes(bytes([1] + 7 * [0]))
    Path("shell.txt").write_text("one")
    Path("tool.sh").write_text("cat tool.txt")
    Path("tables/in.txt").write_text("one")
    Path("tool.txt").write_text("one")
    Path("latest").symlink_to("first")
    Path("second").symlink_to("the second")
    for name, text in {"net.py": NET, "helper.py": "SIGN = 1\n", "scale.txt": "16", "words.json": "[1]"}.items():
        Path(name).write_text(text)
    for label, grey in (("a", 40), ("b", 200)):
        Path(f"val/{label}").mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (4, 4), (grey + number, grey, 7 * number)).save(f"val/{label}/{number}.bmp")
    for number in range(2):
        Path(f"runs/{number}").mkdir(parents=True)
        state = {"weight": torch.randn(2, 12), "bias": torch.zeros(2)}
        save_file(state, f"runs/{number}/model.safetensors")
        Path(f"runs/{number}/config.json").write_text("{}")
    Path("soup.yaml").write_text(
        json.dumps(
            {
                "model": {"python": "net.py:build", "transform": "net.py:transform"},
                "val": {"val": {"images": "val"}, "mine": {"python": "net.py:evaluate", "metric": "accuracy"}},
            }
        )
    )
    return tmp_path


def put_back(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """The change, with the time of before."""

    def changed(file: Path) -> None:
        before = file.stat()
        change(file)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return changed


def flipped(file: Path) -> None:
    """One byte of the pixels is another one."""
    content = bytearray(file.read_bytes())
    content[-3] ^= 255
    file.write_bytes(content)


def exchanged(file: Path) -> None:
    """Two pictures change folders."""
    other = Path("val/b") / file.name
    shutil.move(file, "aside")
    shutil.move(other, file)
    shutil.move("aside", other)


CHANGES: dict[str, Callable[[], object]] = {
    "helper": lambda: put_back(lambda file: file.write_text("SIGN = 2\n"))(Path("helper.py")),
    "network": lambda: Path("net.py").write_text(NET + "\n"),
    "data of the transform": lambda: put_back(lambda file: file.write_text("17"))(Path("scale.txt")),
    "data of the function": lambda: put_back(lambda file: file.write_text("[2]"))(Path("words.json")),
    "data that a library opens": lambda: put_back(lambda file: file.write_bytes(bytes(8)))(Path("tables/number.bin")),
    "data of a command of the function": lambda: put_back(lambda file: file.write_text("two"))(Path("shell.txt")),
    "environment": lambda: os.environ.__setitem__("SPLIT", os.environ["SPLIT"] + "."),
    "environment, by a name that is put together": lambda: os.environ.__setitem__("OF_THE_RUN", "."),
    "a file that was not there": lambda: Path("extra.txt").write_text(""),
    "a folder that was not there": lambda: Path("more").mkdir(),
    "a link that nobody opens": lambda: Path("second").rename("latest"),
    "data of a script of the function": lambda: put_back(lambda file: file.write_text("two"))(Path("tool.txt")),
    "data of a command elsewhere": lambda: put_back(lambda file: file.write_text("two!"))(Path("tables/in.txt")),
    "picture": lambda: put_back(flipped)(Path("val/a/1.bmp")),
    "pictures that change folders": lambda: exchanged(Path("val/a/2.bmp")),
    "configuration": lambda: Path("runs/1/config.json").write_text('{"x": 1}'),
    "weights": lambda: flipped(Path("runs/0/model.safetensors")),
}


def examples(ran: Ran) -> int:
    """How many examples went through a network or a function."""
    assert ran.code == 0, ran.stderr
    count: int = json.loads(ran.stdout)["cost"]["examples"]
    return count


@pytest.mark.long
def test_any_change_is_evaluated_anew(project: Path, soup: Soup) -> None:
    """Changed one after the other, in a seeded order; without a change nothing is evaluated."""
    words: tuple[Any, ...] = ("rank", "--ckpts", "runs/*/", "--val", "val", "mine", "--json")
    assert examples(soup(*words)) == 14
    order = list(CHANGES)
    random.Random(0).shuffle(order)
    for name in order:
        assert examples(soup(*words)) == 0, f"before: {name}"
        CHANGES[name]()
        assert examples(soup(*words)) > 0, name


def test_two_recipes_with_one_function(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders hold the same function and another file beside it: no score of one is that of the other."""
    monkeypatch.chdir(tmp_path)
    save_file = pytest.importorskip("safetensors.numpy").save_file
    numpy = pytest.importorskip("numpy")
    Path("runs").mkdir()
    save_file({"weight": numpy.ones((2, 12), "float32"), "bias": numpy.zeros(2, "float32")}, "runs/a.safetensors")
    for name, number in (("one", 0.25), ("two", 0.5)):
        Path(name).mkdir()
        Path(name, "my_eval.py").write_text(
            "from pathlib import Path\nfrom torch import nn\n\ndef build():\n    return nn.Linear(12, 2)\n\n"
            "def evaluate(model, device):\n"
            "    return {'accuracy': float((Path(__file__).parent / 'number.txt').read_text()), 'n': 1}\n"
        )
        Path(name, "number.txt").write_text(str(number))
        Path(name, "soup.yaml").write_text(
            json.dumps(
                {
                    "model": {"python": "my_eval.py:build"},
                    "val": {"mine": {"python": "my_eval.py:evaluate", "metric": "accuracy"}},
                }
            )
        )
    for name, number, evaluated in (("one", 0.25, 1), ("two", 0.5, 1), ("one", 0.25, 0), ("two", 0.5, 0)):
        words = ("--ckpts", "runs/a.safetensors", "--val", "mine", "--recipe", f"{name}/soup.yaml", "--json")
        ran = soup("rank", *words)
        assert examples(ran) == evaluated
        assert json.loads(ran.stdout)["best"]["scores"]["mine"]["accuracy"]["value"] == number
