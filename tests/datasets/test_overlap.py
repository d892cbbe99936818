"""Which examples two sets share, whatever else is in them and wherever they lie."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from soupcli.datasets.examples import ArrayExamples, TokenExamples
from soupcli.datasets.holdout import SetPart, part_of
from soupcli.datasets.overlap import ContentStore, content_of, contents_of, shared
from soupcli.datasets.tokens import TokenWindows
from tests.helpers.evaluators import evaluators
from tests.helpers.pictures import class_folders, noise


@given(st.lists(st.binary(max_size=8), max_size=30), st.lists(st.binary(max_size=8), max_size=30))
def test_shared(one: list[bytes], other: list[bytes]) -> None:
    """The number of the first that are among the second, each counted as often as it is there."""
    contents = [torch.tensor([content_of(example) for example in part], dtype=torch.int64) for part in (one, other)]
    assert shared(*contents) == sum(example in other for example in one)


def test_rows() -> None:
    """Equal examples have equal contents, of any dtype; one that differs by a bit has another. Labels play no part."""
    for dtype in (torch.float32, torch.bfloat16, torch.uint8, torch.int64):
        rows = torch.arange(12).reshape(4, 3).to(dtype)
        contents = contents_of(ArrayExamples(torch.cat([rows, rows.flip(0)]), torch.arange(8), "mark"))
        assert torch.equal(contents[:4], contents[4:].flip(0))
        assert len(contents.unique()) == 4


def test_parts() -> None:
    """A part has the contents of its examples."""
    whole = ArrayExamples(torch.randn(20, 2), torch.arange(20) % 2, "mark")
    for held_out in (True, False):
        part = part_of(whole, SetPart("a", 0.4, held_out), "mark")
        assert torch.equal(contents_of(part), contents_of(whole)[part.indices])


def test_tokens() -> None:
    """Texts and windows are told by their tokens, however they are padded."""
    ids, starts = torch.tensor([5, 6, 7, 5, 6, 5, 6, 7]), torch.tensor([0, 3, 5, 8])
    texts = TokenExamples({"input_ids": ids}, starts, torch.zeros(3, dtype=torch.int64), "mark", {})
    windows = TokenWindows(ids, starts[:-1], starts[1:], torch.tensor([2, 1, 2]), "mark")
    for examples in (texts, windows):
        one, other, again = contents_of(examples).tolist()
        assert one == again != other


@pytest.fixture
def pictures(family: Path) -> dict[str, Any]:
    """A recipe with two sets of pictures, of which the second has two of the first, in other folders."""
    (family / "net.py").write_text(
        "import torch\nfrom torch import nn\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))\n\n"
        "def transform(picture):\n    return torch.tensor(list(picture.resize((4, 4)).tobytes()))\n"
    )
    class_folders(family / "a", {"x": 3, "y": 2, "z": 1})
    for place, label in enumerate("xyz"):
        noise(family / f"b/{label}/new.png", seed=50 + place)
    shutil.copyfile(family / "a/x/1.png", family / "b/z/other-name.png")
    shutil.copyfile(family / "a/y/0.jpg", family / "b/x/another.jpg")
    return {
        "model": {"python": "net.py:build", "transform": "net.py:transform"},
        "val": {"a": {"images": "a"}, "b": {"images": "b"}},
    }


def test_pictures(pictures: dict[str, Any]) -> None:
    """Pictures are told by what they show, not by their names; what was found out is kept."""
    found = evaluators(pictures, Path("runs/0"))
    assert found.shared("b", "a") is None
    for name in found.context.sets:
        found.labelled(name)
    assert (found.shared("b", "a"), found.shared("a", "b")) == (2, 2)
    assert evaluators(pictures, Path("runs/0")).shared("b", "a") == 2
    Path("b/x/another.jpg").unlink()
    assert evaluators(pictures, Path("runs/0")).shared("b", "a") is None


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": lambda file: file.unlink(),
    "half": lambda file: file.write_bytes(file.read_bytes()[:9]),
    "other": lambda file: file.write_text(file.read_text().replace('"key": "k', '"key": "x')),
    "words": lambda file: file.write_text(file.read_text().replace("1", '"one"')),
    "list": lambda file: file.write_text("[]"),
    "deep": lambda file: file.write_text("[" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_store(tmp_path: Path, damage: str) -> None:
    """What was kept comes back, and what is damaged is as if it were not there."""
    store = ContentStore(tmp_path)
    contents = torch.tensor([1, -(2**63), 2**63 - 1])
    store.put("key", contents)
    found = ContentStore(tmp_path).get("key")
    assert found is not None and torch.equal(found, contents)
    DAMAGE[damage](next(tmp_path.rglob("*.json")))
    assert ContentStore(tmp_path).get("key") is None


def test_unwritable(tmp_path: Path) -> None:
    """Where nothing can be kept nothing is, without a word."""
    (tmp_path / "file").write_text("in the way")
    ContentStore(tmp_path / "file").put("key", torch.tensor([1]))
    assert ContentStore(tmp_path / "file").get("key") is None
