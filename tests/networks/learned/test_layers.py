"""Layers found in the module trees of real networks: stem, blocks, what follows, head; every tensor once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from soupcli.networks.learned.layers import head_of, layers
from tests.helpers.learned_toys import LENGTH, TOKENS, Tied


def vit() -> nn.Module:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    settings: dict[str, Any] = {"embed_dim": 12, "depth": 2, "num_heads": 2, "img_size": 16, "patch_size": 8}
    module: nn.Module = timm.models.VisionTransformer(num_classes=3, **settings)
    return module


def resnet() -> nn.Module:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    module: nn.Module = timm.models.ResNet(
        timm.models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=3, channels=(4, 4, 4, 4), stem_width=4
    )
    return module


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8
    )
    module: nn.Module = transformers.BertForSequenceClassification(config)
    return module


BLOCKS = ["encoder.layer.0", "encoder.layer.1"]
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, list[str]]] = {
    "vit": (vit, "head", ["stem", "blocks.0", "blocks.1", "norm", "head"]),
    "bert": (bert, "classifier", ["bert.embeddings", *(f"bert.{b}" for b in BLOCKS), "bert.pooler", "classifier"]),
    "tied": (Tied, "head", ["embed", "blocks.0", "blocks.1", "head"]),
    "mlp": (lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), "2", ["0", "2"]),
    "flat": (lambda: nn.Linear(2, 3), "", ["model"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_layers(name: str) -> None:
    """The names of the layers, in the order of the network."""
    build, head, names = NETWORKS[name]
    assert [layer.name for layer in layers(build(), per="layer", head=head)] == names


def test_stages() -> None:
    """The blocks of each stage of a ResNet are layers; what stands before them is the stem."""
    found = [layer.name for layer in layers(resnet().eval(), per="layer", head="fc")]
    assert [name for name in found if name.startswith("layer2")] == ["layer2.0", "layer2.1"]
    assert (found[0], found[-1]) == ("stem", "fc")


@pytest.mark.parametrize("per", ["model", "layer", "tensor"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_once(name: str, per: Any) -> None:
    """Floating parameters and persistent buffers, each in one layer; what is tied is one tensor."""
    module = NETWORKS[name][0]()
    state = module.state_dict(keep_vars=True).values()
    wanted = {id(tensor) for tensor in state if tensor.is_floating_point()}
    found = [id(tensor) for layer in layers(module, per=per, head=NETWORKS[name][1]) for tensor in layer.tensors]
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_head() -> None:
    """The linear layer whose output is the logits, and none where there is no such one."""
    images, ids = torch.zeros(1, 3, 16, 16), torch.zeros(1, LENGTH, dtype=torch.int64)
    assert head_of(vit(), vit_forward := vit(), images) is None  # of another module: its hooks see nothing
    assert head_of(vit_forward, vit_forward, images) == "head"
    tied = Tied().eval()
    assert head_of(tied, tied, ids) == "head"
    assert head_of(tied, lambda inputs: tied(inputs) * 2, ids) is None
    lonely = nn.Linear(2, TOKENS)
    assert head_of(lonely, lonely, torch.zeros(1, 2)) == ""
    twice = nn.Sequential(OrderedDict(a=nn.Linear(2, 2)))
    assert head_of(twice, lambda inputs: twice[0](twice[0](inputs)), torch.zeros(1, 2)) is None
    assert not any(part._forward_hooks for part in tied.modules())
