"""torchvision's networks and presets are torchvision's own, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models

from soupcli.checkpoints.open import open_checkpoint
from soupcli.datasets.load import load
from soupcli.datasets.load_context import LoadContext
from soupcli.errors import NetworkError
from soupcli.networks.build import build
from soupcli.networks.libraries.torchvision import _pictures
from soupcli.recipe.networks import TorchvisionNetwork
from soupcli.recipe.sets import ArraysSet
from tests.helpers.network_toys import assert_same, loaded, randomised, saved
from tests.helpers.pictures import noise


def test_equals_torchvision(tmp_path: Path) -> None:
    """Weights, inputs and logits of a resnet18 have the bits of torchvision's model, preset and load_state_dict."""
    source = randomised(models.resnet18(num_classes=5))
    folder = saved(source, tmp_path / "run")
    reference = models.resnet18(num_classes=5).eval()
    reference.load_state_dict(source.state_dict(), strict=True)
    network = build(TorchvisionNetwork(torchvision="resnet18", args={"num_classes": 5}), open_checkpoint(folder))
    assert all(parameter.is_meta for parameter in network.module.parameters())
    loaded(network, folder)
    assert_same(network.module, reference)
    assert network.pictures is not None
    preset = models.ResNet18_Weights.DEFAULT.transforms()
    files = [noise(tmp_path / f"{i}.png", size=(300, 230 + 50 * i), seed=i) for i in range(2)]
    opened = [Image.open(file).convert("RGB") for file in files]
    inputs = network.pictures.normalise(torch.stack([network.pictures.decode(picture) for picture in opened]))
    whole = torch.stack([preset(picture) for picture in opened])
    assert torch.equal(inputs, whole)
    with torch.inference_mode():
        assert torch.equal(network.forward(inputs), reference(whole))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_b_32", "regnet_y_400mf"])
def test_transform_of_other_presets(name: str, tmp_path: Path) -> None:
    """Presets with other sizes and interpolations give torchvision's bits too."""
    preset = models.get_model_weights(name).DEFAULT.transforms()
    pictures = _pictures(preset)
    picture = Image.open(noise(tmp_path / "a.png", size=(300, 180))).convert("RGB")
    assert torch.equal(pictures.normalise(pictures.decode(picture)[None])[0], preset(picture))


def test_errors(tmp_path: Path) -> None:
    """Wrong names and wrong arguments are one-line errors."""
    checkpoint = open_checkpoint(saved(torch.nn.Linear(2, 2), tmp_path))
    with pytest.raises(NetworkError, match=r"has no network 'resnet81', did you mean 'resnet18'\?"):
        build(TorchvisionNetwork(torchvision="resnet81"), checkpoint)
    with pytest.raises(NetworkError, match=r"^torchvision 'resnet18': .*num_clases"):
        build(TorchvisionNetwork(torchvision="resnet18", args={"num_clases": 5}), checkpoint)


def test_other_tasks(tmp_path: Path) -> None:
    """Networks of segmentation and detection are built without fetching anything, without a transform."""
    checkpoint = open_checkpoint(saved(torch.nn.Linear(2, 2), tmp_path))
    network = build(TorchvisionNetwork(torchvision="lraspp_mobilenet_v3_large", args={"num_classes": 3}), checkpoint)
    assert network.pictures is None
    save_file({"inputs": torch.zeros(1, 3, 8, 8), "labels": torch.zeros(1)}, tmp_path / "val.safetensors")
    given = LoadContext(network=network, name="val.val")
    with pytest.raises(NetworkError, match=r"val\.val: LRASPP is a network of torchvision's segmentation") as raised:
        load(ArraysSet(arrays=tmp_path / "val.safetensors"), given)
    assert "a python: set" in str(raised.value.hint)
