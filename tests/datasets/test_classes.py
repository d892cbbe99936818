"""Which class is which, and which logits count, for every way in which a recipe may say it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from soupcli.datasets.class_map import ClassMap
from soupcli.datasets.classes import Classes, classes_of, imagenet_wnids
from soupcli.errors import ValidationError
from soupcli.networks.network import Outline
from soupcli.recipe.sets import ImagesSet

GOLDFISH, SHARK, HEN = "n01443537", "n01484850", "n01514859"  # ImageNet's 1, 2 and 8
IMAGES = Path("set")


def found(names: list[str], *, label_names: list[str] | None = None, numbered: bool = False, **keys: Any) -> Classes:
    outline = Outline(label_names=tuple(label_names) if label_names else None)
    return classes_of(ImagesSet(images=IMAGES, **keys), names, outline=outline, numbered=numbered)


def columns(classes: Classes) -> tuple[tuple[int, ...], ...] | None:
    assert classes.class_map is not None
    return classes.class_map.columns


def test_imagenet_wnids() -> None:
    """The 1,000 wnids are those that timm has, in its order; ImageNet-A's are at the indices that timm has for them."""
    info = resources.files("timm.data") / "_info"
    wnids = imagenet_wnids()
    assert sorted(wnids, key=wnids.__getitem__) == (info / "imagenet_synsets.txt").read_text().split()
    assert sorted(wnids.values()) == list(range(1000))
    subset = (info / "imagenet_a_synsets.txt").read_text().split()
    assert [wnids[name] for name in subset] == [int(i) for i in (info / "imagenet_a_indices.txt").read_text().split()]


def test_by_place() -> None:
    """Nothing said: the place among the folders, and the network must have as many classes."""
    classes = found(["cat", "dog"])
    assert classes.labels == {"cat": 0, "dog": 1}
    assert classes.class_map == ClassMap(2, "set")


def test_by_name() -> None:
    """class_to_index, else the network's own names: logits as they are, none left out."""
    assert found(["cat", "dog"], class_to_index={"dog": 4, "cat": 2})[:2] == ({"dog": 4, "cat": 2}, None)
    assert found(["cat", "dog"], label_names=["dog", "emu", "cat"])[:2] == ({"cat": 2, "dog": 0}, None)
    with pytest.raises(ValidationError, match=r"'cow' is no class .*: the set has cat, cow; the network has dog, emu"):
        found(["cat", "cow"], label_names=["dog", "emu", "cat"])


def test_shards_number_their_classes() -> None:
    """A label in a shard is the logit, unless class_to_index says another."""
    assert found(["3", "0"], numbered=True)[:2] == ({"3": 3, "0": 0}, None)
    assert found(["3"], numbered=True, class_to_index={"3": 7}).labels == {"3": 7}


@pytest.mark.parametrize("ids", [[1, 8], [GOLDFISH, HEN], ["1", HEN], [HEN, 1]])
def test_list_and_wnids(ids: list[int | str]) -> None:
    """Folders that are wnids find their place in the list by name; those that it does not have are left out."""
    classes = found([GOLDFISH, SHARK, HEN], classes=ids)
    place = {name: [1, 8].index(logit) for name, logit in ((GOLDFISH, 1), (HEN, 8))}
    if ids[0] == HEN:
        place = {GOLDFISH: 1, HEN: 0}
    assert classes.labels == place
    assert columns(classes) == tuple((logit,) for logit in ([8, 1] if ids[0] == HEN else [1, 8]))


def test_list_by_place() -> None:
    """Folders that are no wnids, and labels in shards, go by the order of the list."""
    assert found(["a", "b"], classes=[7, 3]).labels == {"a": 0, "b": 1}
    assert columns(found(["a", "b"], classes=[7, 3])) == ((7,), (3,))
    classes = found(["1"], classes=[7, 3, 5], numbered=True)
    assert classes.labels == {"1": 1}
    assert columns(classes) == ((7,), (3,), (5,))


def test_list_of_names() -> None:
    """An id may be the network's own name of a class, and folders go by these."""
    classes = found(["emu"], classes=["dog", "emu"], label_names=["cat", "dog", "emu"])
    assert classes.labels == {"emu": 1}
    assert columns(classes) == ((1,), (2,))


def test_list_and_class_to_index() -> None:
    """class_to_index says the logit of each folder, the list which of them count."""
    classes = found(["a", "b", "c"], classes=[4, 6], class_to_index={"a": 6, "b": 5, "c": 4})
    assert classes.labels == {"a": 1, "c": 0}


def test_folders() -> None:
    """`folders`: those that the wnids, the network's names or class_to_index say, no others."""
    assert columns(found([HEN, GOLDFISH], classes="folders")) == ((1,), (8,))
    assert found([HEN, GOLDFISH], classes="folders").labels == {GOLDFISH: 0, HEN: 1}
    assert columns(found(["emu"], classes="folders", label_names=["cat", "emu"])) == ((1,),)
    assert columns(found(["x"], classes="folders", class_to_index={"x": 5, "y": 6})) == ((5,),)


def test_map() -> None:
    """Several logits may count as one class; two folders with the same logits are one class; others are left out."""
    classes = found(["chair", "sofa", "mug", "yoyo"], classes={"mug": 4, "chair": [9, 2], "sofa": [2, 9]})
    assert columns(classes) == ((2, 9), (4,))
    assert classes.labels == {"mug": 1, "chair": 0, "sofa": 0}
    assert found(["3", "5"], classes={"5": [1]}, numbered=True).labels == {"5": 0}


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("ids.txt", "1\n8\n", ((1,), (8,))),
        ("ids.txt", f"\ufeff{GOLDFISH}\r\n{HEN}\r\n\r\n", ((1,), (8,))),
        ("ids.json", json.dumps([1, HEN]), ((1,), (8,))),
        ("ids.json", json.dumps({GOLDFISH: 5, HEN: [6, 7]}), ((5,), (6, 7))),
    ],
)
def test_files(name: str, content: str, wanted: object, tmp_path: Path) -> None:
    """One id a line, or JSON: a list or a map."""
    (tmp_path / name).write_text(content, "utf-8")
    assert columns(found([GOLDFISH, HEN], classes=tmp_path / name)) == wanted


@pytest.mark.parametrize(
    ("names", "keys", "problem"),
    [
        (
            ["cat", "dgo"],
            {"class_to_index": {"cat": 0, "dog": 1}},
            "set/dgo: class_to_index has no 'dgo', did you mean",
        ),
        (["a", "b"], {"classes": [1, 2, 3]}, "set: has 2 class folders, classes: lists 3"),
        (["0", "5"], {"classes": [1, 2, 3], "numbered": True}, "set: has label 5, classes: lists 3"),
        (["a", "b"], {"classes": [1, 1]}, "set: classes: 1, logit 1, is listed twice"),
        ([GOLDFISH, HEN], {"classes": [GOLDFISH, 1]}, "set: classes: 'n01443537', logit 1, is listed twice"),
        (
            ["a"],
            {"classes": ["n00000000"]},
            "set: classes: 'n00000000' is no index, no class of the network and no wnid",
        ),
        (["a"], {"classes": ["dgo"], "label_names": ["dog"]}, "'dgo' is no index, .*did you mean 'dog'"),
        (["a"], {"classes": "folders"}, "set: classes: folders: what is 'a'"),
        (["chair"], {"classes": {"chiar": 1}}, "set: classes: 'chiar' is no class of set, did you mean 'chair'"),
        (["a", "b"], {"classes": {"a": [1, 2], "b": 2}}, r"set: classes: logit 2 stands for \[1, 2\] and for \[2\]"),
    ],
)
def test_errors(names: list[str], keys: dict[str, Any], problem: str) -> None:
    """What does not go together says both sides."""
    with pytest.raises(ValidationError, match=problem):
        found(names, **keys)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("ids.txt", "", "ids.txt: has no lines"),
        ("ids.txt", "1\n\n2\n", "ids.txt:2: an empty line"),
        ("ids.txt", "one two\n", "ids.txt: 'one two' is no index"),
        ("ids.json", "{", "ids.json: not JSON"),
        ("ids.json", "[]", "ids.json: neither a list of class ids nor a map"),
        ("ids.json", "[1.5]", "ids.json: neither"),
        ("ids.json", '{"a": [-1]}', "ids.json: neither"),
        ("ids.json", '{"a": []}', "ids.json: neither"),
        ("ids.json", '{"a": true}', "ids.json: neither"),
        ("none.txt", None, "none.txt: No such file"),
    ],
)
def test_broken_files(name: str, content: str | None, problem: str, tmp_path: Path) -> None:
    """A file that holds no ids is named, with its line."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValidationError, match=problem):
        found(["a"], classes=tmp_path / name)


def logits(inputs: Any) -> Tensor:
    """A network that hands its inputs on."""
    assert isinstance(inputs, Tensor)
    return inputs


def test_projection() -> None:
    """Column c is the largest of the logits for class c, as the authors' project_logits has it; gradients flow back."""
    logits_nk = torch.randn(20, 10, requires_grad=True)
    projected = ClassMap(3, "set", ((2, 9), (4,), (0, 1, 5))).onto(logits)(logits_nk)
    wanted = [logits_nk[:, list(several)].max(dim=1).values for several in ((2, 9), (4,), (0, 1, 5))]
    assert torch.equal(projected, torch.stack(wanted, dim=1))
    projected.sum().backward()
    assert logits_nk.grad is not None
    assert (logits_nk.grad.sum(dim=1) == 3).all()


def test_projection_checks() -> None:
    """A network with fewer classes than are named, or with others than there are folders, is an error."""
    with pytest.raises(ValidationError, match="set: classes: names logit 9, the network has 5 classes"):
        ClassMap(2, "set", ((2, 9), (4,))).onto(logits)(torch.zeros(1, 5))
    with pytest.raises(ValidationError, match="set: has 2 classes, the network has 5"):
        ClassMap(2, "set").onto(logits)(torch.zeros(1, 5))
    assert torch.equal(ClassMap(5, "set").onto(logits)(torch.ones(1, 5)), torch.ones(1, 5))
