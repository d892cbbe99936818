"""From the recipe's `model:` (or the checkpoint folder's own config.json) to a network without weights.

Parameters are made on the meta device, since every one of them is filled from a checkpoint: nothing is initialised,
no memory is taken. Buffers are real, because those that no checkpoint holds (rotary frequencies, position ids) are
computed by the module itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.errors import NetworkError
from soupcli.network import Network
from soupcli.networks import open_clip_network, python_network, timm_network, torchvision_network, transformers_network
from soupcli.recipe import NetworkSpec, OpenClipNetwork, TimmNetwork, TransformersNetwork

_BUILDERS: dict[str, Callable[[Any, Path, Callable[..., nn.Module]], Network]] = {
    "TimmNetwork": timm_network.build,
    "TransformersNetwork": transformers_network.build,
    "OpenClipNetwork": open_clip_network.build,
    "TorchvisionNetwork": torchvision_network.build,
    "PythonNetwork": python_network.build,
}


def build(spec: NetworkSpec | None, checkpoint: Checkpoint) -> Network:
    """The network that `spec` names, None: the one that the checkpoint's folder names.

    Raises NetworkError where it cannot be built and MissingExtra where its library is absent.
    """
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    spec = spec or spec_of_folder(folder)
    if spec is None:
        raise NetworkError(
            f"{folder}: which network are these weights of? The recipe has no model: and the folder no config.json",
            hint="add a line to soup.yaml: model: {timm: vit_base_patch16_224}, or model: {python: 'net.py:build'}",
        )
    return _BUILDERS[type(spec).__name__](spec, folder, make_without_weights)


def spec_of_folder(folder: Path) -> NetworkSpec | None:
    """What the configuration beside the weights says about their network, None where it says nothing."""
    if (folder / "open_clip_config.json").is_file():
        return OpenClipNetwork(open_clip="auto")
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if "model_type" in config:
        return TransformersNetwork(transformers="auto")
    if "architecture" in config:
        return TimmNetwork(timm="auto")
    return None


def make_without_weights(builder: Callable[[], nn.Module]) -> nn.Module:
    """What `builder` returns, with parameters on the meta device where its code allows it.

    Code that looks at a parameter's values while it builds (`.item()`, a copy to another device) is run again with
    real parameters: the network is the same, its weights are overwritten either way.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with _parameters_on_meta():
                module = builder()
        except (NotImplementedError, RuntimeError):
            module = builder()
    return module.eval()


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    original = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta":
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        original(self, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]
