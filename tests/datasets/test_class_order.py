"""Which class is which follows the library that the network is of; other orders are said, never guessed in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm.data
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.datasets import ImageFolder

from soupcli.datasets import image_folders, images
from soupcli.datasets.class_names import in_order, match
from soupcli.datasets.classes import classes_of, imagenet_wnids
from soupcli.errors import ValidationError
from soupcli.networks.network import UNNAMED, ClassFolders, Outline
from soupcli.recipe.sets import ImagesSet
from tests.conftest import Ran
from tests.helpers.pictures import noise

TIMM = ClassFolders("timm", "natural", innermost=True)
DATASETS = ClassFolders("datasets", "text", innermost=True)
NUMBERED = [str(number) for number in range(1, 13)]  # Oxford flowers are 1 to 102
TRAILING = [f"class_{number}" for number in (1, 2, 10, 11)]
CASED = ["B2", "a10", "b1", "A9"]


def folders(place: Path, names: list[str]) -> Path:
    for name in names:
        noise(place / name / "0.png", size=(8, 8))
    return place


def index_of(place: Path, outline: Outline = UNNAMED, **keys: Any) -> dict[str, int]:
    return images.class_order(ImagesSet(images=place, **keys), outline).index


@pytest.mark.parametrize("names", [NUMBERED, TRAILING, CASED, ["9 b", "10 a", "x"], ["01", "02", "10"]])
def test_orders_of_the_libraries(names: list[str], tmp_path: Path) -> None:
    """torchvision's, timm's and datasets' own readers give the same index of each class."""
    place = folders(tmp_path / "val", names)
    assert index_of(place) == ImageFolder(str(place)).class_to_idx
    assert index_of(place, Outline(TIMM)) == timm.data.create_dataset("", str(place)).reader.class_to_idx
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(place), cache_dir=str(tmp_path / "cache"), split="train")
    own = {name: number for number, name in enumerate(loaded.features["label"].names)}
    assert index_of(place, Outline(DATASETS)) == own


def test_nested_folders(tmp_path: Path) -> None:
    """ImageFolder takes the folder directly below the set as the class, timm the one that holds the picture."""
    place = folders(tmp_path, ["animals/cat", "animals/dog", "plants/oak"])
    assert index_of(place) == ImageFolder(str(place)).class_to_idx == {"animals": 0, "plants": 1}
    assert index_of(place, Outline(TIMM)) == timm.data.create_dataset("", str(place)).reader.class_to_idx
    for outline in (Outline(), Outline(TIMM)):
        warning = images.class_order(ImagesSet(images=place), outline).warning
        assert warning is not None
        assert "other libraries take others" in warning


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (["cat", "dog"], False),
        ([f"{number:02}" for number in range(12)], False),
        ([str(number) for number in range(10)], False),
        ([str(number) for number in range(1000)], False),  # ImageNet-V2
        ([str(number) for number in range(12)], True),
        (NUMBERED, True),
        (TRAILING, True),
        (["Zebra", "ant"], True),
    ],
)
def test_warned_where_orders_differ(names: list[str], warned: bool, tmp_path: Path) -> None:
    """A warning shows both orders and names the key that decides; class_order ends it."""
    for name in names:
        (tmp_path / name).mkdir()
    noise(tmp_path / names[0] / "0.png", size=(8, 8))
    warning = images.class_order(ImagesSet(images=tmp_path), Outline()).warning or ""
    assert ("order of the classes" in warning) is warned
    assert ("class_order: " in warning and "class_to_index" in warning) is warned
    chosen = images.class_order(ImagesSet(images=tmp_path, class_order="text"), Outline())
    assert "order of the classes" not in (chosen.warning or "")


def test_indices(tmp_path: Path) -> None:
    """Folders 0 to n-1 are counted as the network's library counts them, and it is said; ImageNet-V2's as numbers."""
    numbers = {str(number): number for number in range(12)}
    place = folders(tmp_path, list(numbers))
    assert index_of(place) == ImageFolder(str(place)).class_to_idx
    assert "order of the classes" in (images.class_order(ImagesSet(images=place), Outline()).warning or "")
    assert index_of(place, class_order="natural") == index_of(place, Outline(folders=TIMM)) == numbers
    named = tuple(f"bird {number}" for number in range(12))
    assert index_of(place, Outline(label_names=named)) == {str(number): number for number in range(12)}


@pytest.mark.parametrize(
    ("known", "names", "wanted"),
    [
        (("Dog", "Bird", "Cat"), ["bird", "cat", "dog"], {"bird": 1, "cat": 2, "dog": 0}),
        (("golden retriever", "tabby"), ["Golden_Retriever", "tabby"], {"Golden_Retriever": 0, "tabby": 1}),
        (("hot-dog", "not hot dog"), ["hot_dog", "NotHotDog"], {"hot_dog": 0, "NotHotDog": 1}),
        (("cat", "Cat"), ["Cat", "cat"], {"Cat": 1, "cat": 0}),
        (("caf\u00e9", "tea"), ["cafe\u0301", "tea"], {"cafe\u0301": 0, "tea": 1}),  # as macOS names files
    ],
)
def test_names_in_another_spelling(known: tuple[str, ...], names: list[str], wanted: dict[str, int]) -> None:
    """Names match without regard to case, separators and the encoding of accents; an exact one goes first."""
    found = match(names, known)
    assert (found.places, found.unknown, found.ambiguous) == (wanted, [], [])


@pytest.mark.parametrize(
    ("known", "names", "problem"),
    [
        (("dog", "bird", "cat"), ["birds", "cat", "dog"], r"'birds' is no class of the network, did you mean 'bird'\?"),
        (("dog", "bird", "cat"), ["bird", "cat", "dog", "extra"], "'extra' is no class"),
        (("crane", "ox", "crane"), ["crane", "ox"], "'crane' fits several of the network's classes"),
        (("cat", "dog"), ["Cat", "cat"], "'Cat' is no class of the network"),
        (("bird", "cat", "dog"), ["0", "1", "3"], "'0' is no class"),
    ],
)
def test_refused(known: tuple[str, ...], names: list[str], problem: str, tmp_path: Path) -> None:
    """One folder that does not match is refused with both lists; nothing falls back to the folders' order."""
    place = folders(tmp_path, names)
    with pytest.raises(ValidationError, match=problem) as caught:
        index_of(place, Outline(label_names=known))
    assert f"the network has {', '.join(known)}" in str(caught.value)
    assert "class_to_index" in str(caught.value.hint)
    assert index_of(place, Outline(label_names=known), class_order="text")[sorted(names)[0]] == 0


def test_class_names_of_prompts(tmp_path: Path) -> None:
    """`classnames:` that name the folders say which is which; wnids, which they do not name, go by the folders."""
    place = folders(tmp_path / "val", ["bird", "cat", "dog"])
    (tmp_path / "names.txt").write_text("Dog\nBird\nCat\n")
    assert index_of(place, classnames=tmp_path / "names.txt") == {"bird": 1, "cat": 2, "dog": 0}
    (tmp_path / "names.txt").write_text("Dog\nBirds\nCat\n")
    with pytest.raises(ValidationError, match="'bird' is no class"):
        index_of(place, classnames=tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("hen\nox\nelk\n")
    assert index_of(place, classnames=tmp_path / "names.txt") == {"bird": 0, "cat": 1, "dog": 2}


def test_imagenet_by_wnid(tmp_path: Path) -> None:
    """A network with 1,000 human names takes folders of all wnids in ImageNet's order."""
    names = list(imagenet_wnids())
    found = classes_of(ImagesSet(images=tmp_path), names, outline=Outline(label_names=tuple(f"n {n}" for n in names)))
    assert found.labels == imagenet_wnids()


def test_links(tmp_path: Path) -> None:
    """Class folders and pictures that are links are read as ImageFolder reads them; a loop of links ends."""
    folders(tmp_path / "store", ["bee", "cat/deep"])
    folders(tmp_path / "val", ["ant"])
    (tmp_path / "val/bee").symlink_to("../store/bee")
    (tmp_path / "val/cat").symlink_to(tmp_path / "store/cat")
    (tmp_path / "val/ant/linked.png").symlink_to("../../store/bee/0.png")
    found = [str(picture) for picture, _ in image_folders.find(tmp_path / "val").pictures]
    assert found == [path for path, _ in ImageFolder(str(tmp_path / "val")).samples]
    (tmp_path / "val/ant/up").symlink_to("..")
    (tmp_path / "store/cat/deep/loop").symlink_to("..")
    assert [str(picture) for picture, _ in image_folders.find(tmp_path / "val").pictures] == found


def test_empty_and_loose(tmp_path: Path) -> None:
    """An empty class folder holds a place as in ImageFolder(allow_empty=True); loose pictures are counted and said."""
    place = folders(tmp_path, ["cat", "emu"])
    (place / "dog").mkdir()
    noise(place / "loose.png", size=(8, 8))
    found = images.class_order(ImagesSet(images=place), Outline())
    assert found.index == ImageFolder(str(place), allow_empty=True).class_to_idx
    assert "without pictures are counted: dog" in str(found.warning)
    assert "take no part: 1" in str(found.warning)
    assert index_of(place, Outline(TIMM)) == {"cat": 0, "emu": 1}


GREY = """
import numpy as np, torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(12))

    def forward(self, x):
        return -1000 * (x.flatten(1).mean(1, keepdim=True) - self.centre) ** 2

def build():
    return Net()

def transform(picture):
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255
"""


def test_said_by_commands(tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A network trained with ImageFolder is right; the order stands in --dry-run, the report and on stderr."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NUMBERED):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (10 + 20 * number,) * 3).save(tmp_path / "val" / name / "0.png")
    centre = [(10 + 20 * NUMBERED.index(name)) / 255 for name in ImageFolder("val").classes]
    torch.save({"centre": torch.tensor(centre)}, "run.pt")
    Path("net.py").write_text(GREY)
    Path("soup.yaml").write_text('model: {python: "net.py:build", transform: "net.py:transform"}\n')
    planned = json.loads(soup("rank", "--ckpts", "run.pt", "--val", "val", "--dry-run", "--json").stdout)
    ran = soup("rank", "--ckpts", "run.pt", "--val", "val", "--json")
    report = json.loads(ran.stdout)
    assert report["ingredients"][0]["scores"]["val"]["accuracy"]["value"] == 1.0
    assert planned["classes"] == report["classes"]
    assert report["classes"]["val"]["index"] == {name: place for place, name in enumerate(in_order(NUMBERED, "text"))}
    assert ran.stderr.count("order of the classes") == 1
    assert any("class_order: natural" in warning for warning in report["warnings"])
    assert (
        "12 classes by class folders in text order"
        in soup("rank", "--ckpts", "run.pt", "--val", "val", "--dry-run").stdout
    )


def test_names_stated_beside_the_weights(tmp_path: Path) -> None:
    """A list beside the weights names the classes of any network. One that fits in part is refused, two orders too."""
    place = folders(tmp_path, ["bird", "cat", "dog"])
    stated = {"classes.txt": ["dog", "bird", "cat"]}
    assert index_of(place, Outline(stated=stated)) == {"bird": 1, "cat": 2, "dog": 0}
    assert index_of(place, Outline(label_names=("cat", "dog", "bird"), stated=stated)) == {
        "bird": 2,
        "cat": 0,
        "dog": 1,
    }
    assert index_of(place, Outline(stated={"labels.txt": ["hen", "ox"]})) == {"bird": 0, "cat": 1, "dog": 2}
    with pytest.raises(ValidationError, match="'bird' is no class"):
        index_of(place, Outline(stated={"labels.txt": ["dogs", "birds", "cats"]}))
    with pytest.raises(
        ValidationError, match=r"'bird' is no class.*classes.txt beside the weights has dog, birds, cat"
    ):
        index_of(place, Outline(stated={"classes.txt": ["dog", "birds", "cat"]}))
    with pytest.raises(ValidationError, match=r"two orders of the classes: classes.txt dog, bird, cat, config.json"):
        index_of(place, Outline(stated={**stated, "config.json: label_names": ["bird", "cat", "dog"]}))


def test_lists_of_unknown_meaning_beside_the_weights(tmp_path: Path) -> None:
    """A list of the same names in another order is refused, unless the recipe says the order."""
    place = folders(tmp_path, ["bird", "cat", "dog"])
    moved = Outline(lists=lambda: {"hparams.yaml: species": ["dog", "bird", "cat"]})
    with pytest.raises(ValidationError, match=r"order of the classes would be bird, cat, dog; hparams.yaml: species"):
        index_of(place, moved)
    assert index_of(place, moved._replace(stated={"classes.txt": ["dog", "cat", "bird"]}))["dog"] == 0
    for names in (["bird", "cat", "dog"], ["dog", "cat", "hen"], ["dog", "cat"]):
        same: dict[str, list[str]] = {"x": names}
        assert index_of(place, Outline(lists=same.copy)) == {"bird": 0, "cat": 1, "dog": 2}
    spec = ImagesSet(images=place, class_order="text")
    assert classes_of(spec, ["bird", "cat", "dog"], outline=moved).labels == {"bird": 0, "cat": 1, "dog": 2}


NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.centre = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return -(x.mean((1, 2, 3))[:, None] - self.centre) ** 2

def transform(picture):
    return torch.full((3, 1, 1), picture.getpixel((0, 0))[0] / 255)
"""


def two_greys() -> dict[str, int]:
    """Make a set of a black bird and a white cat, and a recipe with a network that tells greys apart."""
    grey = {"bird": 0, "cat": 255}
    for folder, value in grey.items():
        Path("val", folder).mkdir(parents=True)
        Image.new("RGB", (1, 1), (value,) * 3).save(Path("val", folder, "0.png"))
    Path("net.py").write_text(NET)
    Path("soup.yaml").write_text(
        'model: {python: "net.py:Net", transform: "net.py:transform"}\nval: {val: {images: val}}\n'
    )
    return grey


def test_files_of_one_folder_state_their_own_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soup: Callable[..., Ran]
) -> None:
    """Each of two files in one folder is judged by the classes that lie in it."""
    monkeypatch.chdir(tmp_path)
    grey = two_greys()
    for run, order in {"a.pth": ["bird", "cat"], "b.pth": ["cat", "bird"]}.items():
        state = {"centre": torch.tensor([grey[one] / 255 for one in order])}
        torch.save({"state_dict": state, "class_to_idx": {one: place for place, one in enumerate(order)}}, run)
    ran = soup("eval", "--ckpts", "a.pth", "b.pth", "--val", "val", "--json")
    rows = json.loads(ran.stdout)["ingredients"]
    assert [row["scores"]["val"]["accuracy"]["value"] for row in rows] == [1.0, 1.0]


@pytest.mark.parametrize(
    "name", ["config.json", "class_names.json", "class_to_idx.json", "classes.txt", "hparams.yaml"]
)
def test_each_is_judged_by_the_list_beside_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soup: Callable[..., Ran]
) -> None:
    """A network of the user's own has its classes in the order of the list beside its weights, kept scores too."""
    monkeypatch.chdir(tmp_path)
    grey = two_greys()

    def write(run: str, order: list[str]) -> None:
        index = {one: place for place, one in enumerate(order)}
        content = {"config.json": json.dumps({"id2label": dict(enumerate(order))}), "classes.txt": "\r\n".join(order)}
        content["hparams.yaml"] = f"class_names: {order}"
        Path(run, name).write_text(content.get(name, json.dumps(order if name == "class_names.json" else index)))

    for run, order in {"a": ["bird", "cat"], "b": ["cat", "bird"]}.items():
        Path(run).mkdir()
        save_file({"centre": torch.tensor([grey[one] / 255 for one in order])}, Path(run, "model.safetensors"))
        write(run, order)
    for wanted in ([1.0, 1.0], [1.0, 0.0]):
        ran = soup("eval", "--ckpts", "a", "b", "--val", "val", "--json")
        rows = sorted(json.loads(ran.stdout)["ingredients"], key=lambda row: row["path"])
        assert [row["scores"]["val"]["accuracy"]["value"] for row in rows] == wanted
        write("b", ["bird", "cat"])
