"""Rows of 0 and 1 from tables, lists and tensors, in the order of the logits; anything else is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from soupcli.datasets import arrays, label_rows
from soupcli.datasets.images import find
from soupcli.errors import ValidationError
from soupcli.networks.network import Outline
from soupcli.recipe.sets import ArraysSet, ImagesSet

NAMES = ("cat", "dog", "bird")


def table(folder: Path, text: str) -> Path:
    """A csv file."""
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def pictures(folder: Path, *names: str) -> Path:
    """Tiny pictures below a folder."""
    for name in names:
        (folder / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / "val" / name)
    return folder / "val"


def test_columns_go_by_the_names_of_the_network() -> None:
    """In any order of the file; without names, or with quite other ones, in the order of the recipe."""
    rows = [{"dog": "0", "bird": 1.0, "cat": "True"}, {"dog": 1, "bird": "false", "cat": 0}]
    file, columns = Path("dev.csv"), ["dog", "bird", "cat"]
    by_names = label_rows.of_columns(file, rows, columns, ("Cat", "dog", "bird"))
    assert by_names.labels.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert by_names.labels.dtype == torch.uint8
    assert by_names.order.index == {"cat": 0, "dog": 1, "bird": 2}
    assert by_names.order.by == "the network's class names"
    for names in (None, ("a", "b", "c")):
        assert label_rows.of_columns(file, rows, columns, names).labels.tolist() == [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("names", [("cat", "dog", "fish"), ("cat", "dog"), ("cat", "dog", "bird", "fish")])
def test_columns_that_are_not_the_classes(names: tuple[str, ...]) -> None:
    """Some of the names, too few or too many: an error that lists both."""
    with pytest.raises(ValidationError, match=r"dev\.csv: the columns of labels are dog, bird, cat; the network's"):
        label_rows.of_columns(Path("dev.csv"), [], ["dog", "bird", "cat"], names)


@pytest.mark.parametrize("value", ["2", 0.5, "yes", "", None, float("nan"), [1], -1])
def test_a_value_that_is_neither(value: object) -> None:
    """The error has file, row, column and value."""
    rows: list[dict[str, Any]] = [{"cat": 1, "dog": 0}, {"cat": 1, "dog": value}]
    with pytest.raises(ValidationError, match=r"dev\.csv: row 2: column 'dog' is .*, neither 0 nor 1"):
        label_rows.of_columns(Path("dev.csv"), rows, ["cat", "dog"], None)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([["bird", "cat"], [], ["dog"]], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
        ([[2, 0], [], [1]], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
        ([[1, 0, 1], [0, 0, 0], [0, 1, 0]], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
    ],
)
def test_lists(values: list[object], wanted: list[list[int]]) -> None:
    """Names of classes, their numbers, or a 0 or 1 for each class."""
    assert label_rows.of_lists(Path("dev.jsonl"), values, NAMES).labels.tolist() == wanted


@pytest.mark.parametrize(
    ("values", "names", "problem"),
    [
        ([["cat"], "dog"], NAMES, r"row 2: label 'dog' is no list"),
        ([["cat"], ["bat"]], NAMES, r"row 2: label 'bat' is none of cat, dog, bird, did you mean 'cat'"),
        ([["cat"]], None, r"lists of the names cat, and the network does not name its classes"),
        ([["cat", 1]], NAMES, r"row 1: label \['cat', 1\] is neither a list of class names nor one of whole numbers"),
        ([[0], [3]], NAMES, r"row 2: label \[3\] is neither a 0 or a 1 for each class, nor a list of class numbers"),
        ([[1, 1], [2, 0]], NAMES, r"row 1: label \[1, 1\] is neither"),
        ([[2], [0, 1]], None, "lists of class numbers, and nothing says how many classes there are"),
        ([[0, 1], [1, 0]], NAMES, r"labels such as \[0, 1\] may be rows of 0 and 1, or lists of class numbers"),
    ],
)
def test_lists_that_say_nothing(values: list[object], names: tuple[str, ...] | None, problem: str) -> None:
    """Unknown names, numbers without a count, and what can be read both ways are refused by row."""
    with pytest.raises(ValidationError, match=problem):
        label_rows.of_lists(Path("dev.jsonl"), values, names)


def test_a_table_beside_pictures(tmp_path: Path) -> None:
    """Rows are found by path, name or name without its ending, in any order; other rows take no part."""
    folder = pictures(tmp_path, "a.png", "sub/b.png", "c.png")
    file = table(tmp_path, "image,cat,dog\nsub/b.png,0,1\nunused,1,1\nc,1,1\na.png,1,0\n")
    found = find(ImagesSet(images=folder, labels=file))
    assert [str(picture.path.name) for picture in found.pictures] == ["a.png", "c.png", "b.png"]
    assert found.labels.tolist() == [[1, 0], [1, 1], [0, 1]]
    named = find(ImagesSet(images=folder, labels=file, label=["dog"]), outline=Outline(label_names=("dog",)))
    assert named.labels.tolist() == [[0], [1], [1]]
    with pytest.raises(ValidationError, match=r"would be cat, dog; config\.yaml: outputs beside the weights lists dog"):
        find(
            ImagesSet(images=folder, labels=file),
            outline=Outline(lists=lambda: {"config.yaml: outputs": ["dog", "cat"]}),
        )


def test_splits_of_one_folder(tmp_path: Path) -> None:
    """A table for a part of the pictures makes a set of these, which is said; its names may begin at its own folder."""
    folder = pictures(tmp_path, "a.png", "sub/b.png", "c.png")
    file = table(tmp_path, f"image,cat\n{folder.name}/c.png,1\n{folder.name}/sub/b.png,0\n")
    found = find(ImagesSet(images=folder, labels=file))
    assert [picture.path.name for picture in found.pictures] == ["c.png", "b.png"]
    assert found.labels.tolist() == [[1], [0]]
    assert found.order is not None
    assert found.order.warning == "1 of 3 pictures (a.png) have no row in labels.csv: they take no part"


def test_file_name_of_datasets(tmp_path: Path) -> None:
    """metadata.jsonl with `file_name` anywhere."""
    folder = pictures(tmp_path, "a.png", "b.png")
    rows = [{"cat": 1, "file_name": "b.png", "dog": 0}, {"cat": 0, "file_name": "a.png", "dog": 1}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert find(ImagesSet(images=folder, labels=tmp_path / "metadata.jsonl")).labels.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("text", "label", "problem"),
    [
        (
            "image,cat\na.png,1\nc.png,1\n",
            None,
            r"no row whose column 'image' is 'b\.png'.*, and rows .*\(1 such pictures, 1 such rows, 'c\.png' for one\)",
        ),
        ("image,cat\na.png,1\nb.png,0\na.png,0\n", None, r"row 3: image 'a\.png' is that of row 1, too"),
        ("image,cat,split\na.png,1,val\nb.png,0,val\n", None, r"row 1: column 'split' is 'val', neither 0 nor 1"),
        ("image,cat\na.png,1\nb.png,0\n", ["cta"], r"has no column 'cta', did you mean 'cat'"),
        ("image\na.png\nb.png\n", None, "has no column of labels"),
    ],
)
def test_tables_that_do_not_fit(text: str, label: list[str] | None, problem: str, tmp_path: Path) -> None:
    """A picture without a row or with two, a column that is none of labels."""
    folder, file = pictures(tmp_path, "a.png", "b.png"), table(tmp_path, text)
    with pytest.raises(ValidationError, match=problem):
        find(ImagesSet(images=folder, labels=file, label=label))


@pytest.mark.parametrize("change", [torch.Tensor.bool, torch.Tensor.float, torch.Tensor.long])
def test_tensors(change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
    """Labels [N, K] of any dtype; a 2 or a half is an error with its place."""
    labels = change(torch.tensor([[0, 1], [1, 1], [0, 0]]))
    save_file({"inputs": torch.zeros(3, 2), "labels": labels}, tmp_path / "val.safetensors")
    found = arrays.load(ArraysSet(arrays=tmp_path / "val.safetensors"))
    assert (found.kind, found.labels.tolist()) == ("multilabel", [[0, 1], [1, 1], [0, 0]])
    save_file({"inputs": torch.zeros(1, 2), "labels": torch.tensor([[1.0, 0.5]])}, tmp_path / "soft.safetensors")
    with pytest.raises(ValidationError, match=r"soft\.safetensors: labels\[0, 1\] is 0\.5, neither 0 nor 1"):
        arrays.load(ArraysSet(arrays=tmp_path / "soft.safetensors"))
