"""Networks of the user's own file: arguments, transforms, and errors that name the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError, RecipeError
from soupcli.networks.build import build
from soupcli.networks.network import Network
from soupcli.recipe.networks import PythonNetwork
from tests.helpers.network_toys import assert_same, loaded, randomised, saved

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, classes))
        self.register_buffer("steps", torch.arange(4.0), persistent=False)

    def forward(self, x):
        return self.body(x + self.steps)

def build(width=8, **options):
    return Net(width, **options)

def not_a_module():
    return {"weights": 1}

def fails():
    raise KeyError("head")

def leaves():
    raise SystemExit(3)

def transform(picture):
    grey = picture.resize((2, 2)).convert("L")
    return torch.tensor(list(grey.tobytes()), dtype=torch.float32) / 255
"""


def built(folder: Path, function: str = "build", **options: Any) -> Network:
    """The network of `net.py` in the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "net.py").write_text(NET)
    checkpoint = open_checkpoint(saved(nn.Linear(1, 1), folder / "any"))
    return build(PythonNetwork(python=f"{folder}/net.py:{function}", **options), checkpoint)


def test_equals_the_users_network(tmp_path: Path) -> None:
    """Built with arguments and without weights, filled, it gives the bits of load_state_dict(strict=True)."""
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    reference = randomised(namespace["build"](width=5, classes=2))
    network = built(tmp_path, args={"width": 5, "classes": 2})
    assert all(parameter.is_meta for parameter in network.module.parameters())
    loaded(network, saved(reference, tmp_path / "run"))
    assert_same(network.module, reference)
    inputs = torch.randn(6, 4)
    with torch.inference_mode():
        assert torch.equal(network.forward(inputs), reference(inputs))


def test_transform(tmp_path: Path) -> None:
    """`transform:` makes the inputs of pictures; what describes it changes with the file, and with its place.

    A copy elsewhere may open what lies beside the copy.
    """
    reference = f"{tmp_path}/net.py:transform"
    network = built(tmp_path, transform=reference)
    assert network.pictures is not None
    picture = Image.new("RGB", (4, 4), (51, 51, 51))
    assert torch.equal(network.pictures.normalise(network.pictures.decode(picture)[None]), torch.full((1, 4), 0.2))
    elsewhere = built(tmp_path / "moved", transform=f"{tmp_path}/moved/net.py:transform")
    assert elsewhere.pictures is not None
    assert network.pictures.description != elsewhere.pictures.description
    (tmp_path / "net.py").write_text(NET + "\n# changed\n")
    changed = build(
        PythonNetwork(python=f"{tmp_path}/net.py:build", transform=reference), open_checkpoint(tmp_path / "any")
    )
    assert changed.pictures is not None
    assert changed.pictures.description != network.pictures.description


def test_errors(tmp_path: Path) -> None:
    """What the function raises is told in one line with its place; what it returns must be a network."""
    with pytest.raises(NetworkError, match=r"net\.py:not_a_module: returned a dict, a network is a torch.nn.Module"):
        built(tmp_path, "not_a_module")
    with pytest.raises(NetworkError, match=r"net\.py:21: KeyError: 'head'"):
        built(tmp_path, "fails")
    with pytest.raises(NetworkError, match=r"net\.py:24: SystemExit: 3"):
        built(tmp_path, "leaves")
    with pytest.raises(NetworkError, match=r"TypeError: .*unexpected keyword argument 'depth'"):
        built(tmp_path, args={"depth": 3})
    with pytest.raises(RecipeError, match=r"net\.py: has no function 'biuld', did you mean 'build'\?"):
        built(tmp_path, "biuld")
    with pytest.raises(RecipeError, match=r"nowhere\.py: No such file or directory, the recipe names"):
        build(PythonNetwork(python=f"{tmp_path}/nowhere.py:build"), open_checkpoint(tmp_path / "any"))
