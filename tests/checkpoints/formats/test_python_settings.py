"""Settings in Python text are read as they stand, and no line of them is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soupcli.checkpoints.formats.python_settings import is_python, of_python

if TYPE_CHECKING:
    from pathlib import Path

OF_MMENGINE = """\
_base_ = ['../r50.py']
norm = dict(mean=[123.675, 116.28 / 2], to_rgb=True)
model = dict(type='R', backbone=dict(depth=50, **norm), other=get(1))
model['neck'] = None
"""
OF_DETECTRON = """\
from detectron2.config import LazyCall as L
model = L(ResNet)(depth=50, stem=L(Stem)(width=3), build=lambda: 1)
model.stem.width = 4
model.pixel_mean = [1.0] + [2.0]
"""
OF_SCRIPT = '''\
"""A training."""
class Config(Base):
    size: int = 2 * 112
    names = ("cat", "dog")
    def run(self): names = 1
names, shape = 1, 2
mean = np.array([0.5])
tfms = T.Compose([T.Resize(224), T.Normalize([0.5], std=[0.1])])
names = Config.names
names += ["cow"]
lost = names
lost = unknown
if True: never = 1
'''


def test_configurations() -> None:
    """Maps and calls are maps, what a line changes counts, and what is only known by running it is left out."""
    norm = {"mean": [123.675, 58.14], "to_rgb": True}
    assert of_python(OF_MMENGINE) == {
        "_base_": ["../r50.py"],
        "norm": norm,
        "model": {"type": "R", "backbone": {"depth": 50, **norm}, "neck": None},
    }
    stem = {"type": "Stem", "width": 4}
    assert of_python(OF_DETECTRON) == {"model": {"type": "ResNet", "depth": 50, "stem": stem, "pixel_mean": [1.0, 2.0]}}
    assert of_python(OF_SCRIPT) == {
        "Config": {"size": 224, "names": ["cat", "dog"]},
        "mean": [0.5],
        "tfms": {
            "type": "Compose",
            0: {"type": "Resize", "size": 224},
            1: {"type": "Normalize", "mean": [0.5], "std": [0.1]},
        },
        "names": ["cat", "dog", "cow"],
    }


def test_nothing_runs(tmp_path: Path) -> None:
    """What a stranger's file would do on import is not done."""
    target = tmp_path / "ran"
    assert of_python(f"x = open({str(target)!r}, 'w')\nimport soupcli.nothing\ny = __import__('os')\nz = 1\n") == {
        "z": 1
    }
    assert not target.exists()


@pytest.mark.parametrize("text", ["(" * 300, "-" * 100_000 + "1", "1+" * 50_000 + "1", "a\0b", "x =", "#" * 200_001])
def test_broken(text: str) -> None:
    """Broken, deep and long texts raise ValueError."""
    with pytest.raises(ValueError, match=r"."):
        of_python(text)


def test_growing() -> None:
    """Texts and lists that double with each line, and numbers without end, are not made."""
    doubled = of_python("x = 'a'\n" + "x += x\n" * 200 + "y = [1]\n" + "y += y\n" * 200 + "z = 1e300 * 1e300\n")
    assert doubled == {}
    assert of_python("x = {}\nx.y = x\n")["x"]["y"]["y"] is not None
    assert of_python("x = 'a' * 10**9\ny = 2\n") == {"y": 2}


def test_which_texts() -> None:
    """Several lines whose first one sets a name are settings in Python; prose, YAML and code are not."""
    assert is_python("# resnet\nmodel = dict(\n)\n")
    assert not any(map(is_python, ("model: a\nb: c\n", "lr = 1", "x == 1\ny", "import a\nb = 1\n", "It is = 1\n\n")))


def test_attributes_of_classes() -> None:
    """What `__init__` gives to `self` are entries of its class (YOLOX); other methods say nothing."""
    methods = "    def __init__(self):\n        b = 2\n        self.c = b\n    def d(self):\n        self.e = 3\n"
    text = f"class Exp:\n    a = 1\n{methods}"
    assert of_python(text) == {"Exp": {"a": 1, "c": 2}}


def test_letters_and_words() -> None:
    """A text is a list of its letters, or of its words, where code makes one of it."""
    lists = "letters = 'ab'\nsymbols = ['_'] + list(letters)\nwords = 'cat dog'.split()\n"
    text = f"{lists}classes = OrderedDict({{'a': 0}})\npairs = OrderedDict([('b', 1), ('c', 2)])\n"
    assert of_python(text) == {
        "letters": "ab",
        "symbols": ["_", "a", "b"],
        "words": ["cat", "dog"],
        "classes": {"a": 0},
        "pairs": {"b": 1, "c": 2},
    }
