"""What a set's keys say about its pictures is what torchvision makes of them, whatever the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.data
import torch
from PIL import Image
from torchvision import transforms

from soupcli.errors import NetworkError, RecipeError
from soupcli.networks.libraries import timm as timm_network
from soupcli.networks.libraries import torchvision as torchvision_network
from soupcli.networks.pictures import PictureSettings, of_set, of_settings
from soupcli.recipe.networks import TimmNetwork, TorchvisionNetwork
from soupcli.recipe.precedence import load_recipe
from soupcli.recipe.sets import ImagesSet
from tests.helpers.pictures import class_folders, noise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def made(pictures: Any, picture: Any) -> torch.Tensor:
    tensor: torch.Tensor = pictures.normalise(pictures.decode(picture.convert(pictures.mode))[None])[0]
    return tensor


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (33, 33), (100, 21), (20, 24)])
@pytest.mark.parametrize(
    ("resize", "crop", "interpolation"),
    [
        (24, 24, "bilinear"),
        (32, 24, "bicubic"),
        ((20, 28), None, "lanczos"),
        (24, (16, 20), "nearest"),
        (16, 31, "bilinear"),
    ],
)
def test_equals_torchvision(size: tuple[int, int], resize: Any, crop: Any, interpolation: str, tmp_path: Path) -> None:
    """Resized, cut out (filled with black if it is too small) and normalised to the last bit as torchvision does."""
    picture = Image.open(noise(tmp_path / "a.png", size=size))
    steps: list[Any] = [transforms.Resize(resize, transforms.InterpolationMode(interpolation))]
    steps += [transforms.CenterCrop(crop)] if crop is not None else []
    own = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    found = of_settings(PictureSettings(resize, crop, MEAN, STD, interpolation), "test")
    assert torch.equal(made(found, picture), own(picture))


def test_settings_of_the_libraries(tmp_path: Path) -> None:
    """The settings of a timm and of a torchvision network make of a picture what its own transform makes."""
    picture = Image.open(noise(tmp_path / "a.png", size=(300, 280)))
    for own in (
        timm_network.build(TimmNetwork(timm="resnet10t", args={"num_classes": 3}), tmp_path).pictures,
        torchvision_network.build(TorchvisionNetwork(torchvision="resnet18"), tmp_path).pictures,
    ):
        assert own is not None
        assert torch.equal(made(of_settings(own.settings, ""), picture), made(own, picture))


def test_one_key_changes_one_thing(tmp_path: Path) -> None:
    """The rest stays as the network has it, and the line says where it comes from; none: the network's own."""
    own = torchvision_network.build(TorchvisionNetwork(torchvision="resnet18"), tmp_path).pictures
    assert of_set(ImagesSet(images=tmp_path), own, "val") is own
    found = of_set(ImagesSet(images=tmp_path, size=64), own, "val")
    assert own is not None
    assert found is not None
    assert found.settings == PictureSettings(64, 64, own.settings.mean, own.settings.std, "bilinear")
    assert found.source == "size of the recipe, the rest the transform of torchvision's default weights"
    with pytest.raises(NetworkError, match="val: size say a part of the transform, and nothing says mean: and std:"):
        of_set(ImagesSet(images=tmp_path, size=64), None, "val")
    alone = of_set(ImagesSet(images=tmp_path, size=8, mean=[0, 0, 0], std=[1, 1, 1]), None, "val")
    assert alone is not None
    assert made(alone, Image.open(noise(tmp_path / "a.png"))).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("size: [1, 2, 3]", r"size: expected pixels, or \[height, width\]"),
        ("crop: 0", "crop: expected pixels"),
        ("std: [1, 0, 1]", "std: expected numbers above 0"),
        ("interpolation: cubic", "interpolation: .*did you mean 'bicubic'"),
        ("size: 8, transform: 'net.py:transform'", "transform: says it all, size: does not go with it"),
        ("sise: 8", "unknown key, did you mean 'size'"),
    ],
)
def test_keys_that_do_not_go(keys: str, problem: str, tmp_path: Path) -> None:
    """A key that cannot be read is an error of the recipe that names it."""
    (tmp_path / "soup.yaml").write_text(f"val: {{val: {{images: val, {keys}}}}}\n")
    with pytest.raises(RecipeError, match=problem):
        load_recipe(tmp_path / "soup.yaml")


TRANSFORM = """
import torch
from torchvision import transforms

own = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor(),
                          transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])

def transform(picture):
    return own(picture.convert("RGB"))
"""


def test_own_loop(tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A timm network of an own loop at 32 px: the keys, or the loop's own function, give the loop's own scores."""
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "val", {"a": 5, "b": 5, "c": 5})
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=3).eval()
    torch.save(network.state_dict(), "run.pth")
    Path("aug.py").write_text(TRANSFORM)
    namespace: dict[str, Any] = {}
    exec(TRANSFORM, namespace)
    files = sorted(Path("val").rglob("*.*"))
    labels = torch.tensor([["a", "b", "c"].index(file.parent.name) for file in files])
    with torch.no_grad():
        logits = network(torch.stack([namespace["transform"](Image.open(file)) for file in files]))
    wanted = torch.nn.functional.cross_entropy(logits, labels).item()
    model = "model: {timm: resnet10t, args: {num_classes: 3}}\nmetric: nll\n"
    imagenet = f"mean: {list(MEAN)}, std: {list(STD)}"
    found, report, planned = [], dict[str, Any](), None
    for keys in (f"size: 32, {imagenet}, interpolation: bilinear", "transform: 'aug.py:transform'"):
        Path("soup.yaml").write_text(f"{model}val: {{val: {{images: val, {keys}}}}}\n")
        ran = soup("rank", "--ckpts", "run.pth", "--val", "val", "--json")
        report = json.loads(ran.stdout)
        assert "val.val: pictures go in at 32 x 32 pixels" in " ".join(ran.stderr.split())
        found.append(report["ingredients"][0]["scores"]["val"]["nll"]["value"])
        planned = soup("rank", "--ckpts", "run.pth", "--val", "val", "--dry-run", "--json")
        assert json.loads(planned.stdout)["transforms"] == report["transforms"]
    assert found == pytest.approx([wanted, wanted], rel=1e-5)
    assert report["transforms"]["val"].startswith("the function ")
    assert planned is not None
    assert any(reference.endswith("aug.py:transform") for reference in json.loads(planned.stdout)["code"])
    Path("aug.py").write_text(TRANSFORM.replace("Resize(32)", "Resize(40)"))
    again = json.loads(soup("rank", "--ckpts", "run.pth", "--val", "val", "--json").stdout)
    assert again["ingredients"][0]["scores"]["val"]["nll"]["value"] != found[1]  # the function is part of the set
