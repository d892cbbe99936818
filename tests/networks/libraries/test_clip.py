"""CLIP and ALIGN of transformers: zero-shot logits are the library's own, and a head has the authors' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError
from soupcli.networks.build import build
from soupcli.networks.network import Network
from soupcli.recipe.networks import TransformersNetwork
from tests.helpers import transformers_toys as toys
from tests.helpers.network_toys import loaded
from tests.helpers.pictures import noise

NAMES = ["good film", "bad", "the plot"]
MAKE: dict[str, Any] = {"align": toys.align, "clip": toys.clip}


def opened(folder: Path, **keys: Any) -> Network:
    network = build(TransformersNetwork(transformers="auto", **keys), open_checkpoint(folder))
    loaded(network, folder)
    return network


def pictures(folder: Path, processor: Any) -> torch.Tensor:
    """Three pictures as the processor makes them."""
    opened = [Image.open(noise(folder / f"{n}.png", size=(50, 40 + 10 * n), seed=n)) for n in range(3)]
    made: torch.Tensor = processor(images=opened, return_tensors="pt")["pixel_values"]
    return made


@pytest.mark.parametrize("kind", MAKE)
def test_zero_shot(kind: str, tmp_path: Path) -> None:
    """With one template the logits are `logits_per_image` of the library's own forward pass, inputs its processor's."""
    MAKE[kind](tmp_path / "run")
    model = transformers.AutoModel.from_pretrained(tmp_path / "run").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "run")
    pixels, network = pictures(tmp_path, processor), opened(tmp_path / "run")
    assert network.zero_shot is not None
    assert network.pictures is not None
    first = Image.open(tmp_path / "0.png")
    assert torch.equal(network.pictures.normalise(network.pictures.decode(first)[None])[0], pixels[0])
    words = tokenizer([f"a {name}" for name in NAMES], padding=True, return_tensors="pt")
    with torch.inference_mode():
        wanted = model(**words, pixel_values=pixels).logits_per_image
        found = network.zero_shot(network.module, NAMES, ["a {}"])(pixels)
        both = network.zero_shot(network.module, NAMES, ["a {}", "the {} was very"])(pixels)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MAKE)
def test_head(kind: str, tmp_path: Path) -> None:
    """A linear layer on the normalised embedding, saved beside the network under the authors' names."""
    model = MAKE[kind](tmp_path / "run")
    head = torch.nn.Linear(model.config.projection_dim, 5)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {f"classification_head.{name}": tensor.detach() for name, tensor in head.state_dict().items()}
    save_file(state, tmp_path / "run/model.safetensors")
    pixels = pictures(tmp_path, transformers.AutoImageProcessor.from_pretrained(tmp_path / "run"))
    network = opened(tmp_path / "run", head=5)
    assert network.zero_shot is None
    with torch.inference_mode():
        embedding = model.get_image_features(pixel_values=pixels).pooler_output
        wanted = head(embedding / embedding.norm(dim=-1, keepdim=True))
        assert torch.equal(network.module(pixels), wanted)


def test_head_of_another_network(tmp_path: Path) -> None:
    """Networks without an image embedding have no place for it."""
    toys.bert(tmp_path / "run")
    with pytest.raises(NetworkError, match="head: is for CLIPModel and AlignModel, this is a BertForSequenceClass"):
        opened(tmp_path / "run", head=3)
