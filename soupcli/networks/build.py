"""From the recipe's `model:` (or the checkpoint folder's own config.json) to a network without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.errors import NetworkError
from soupcli.networks.libraries import open_clip as open_clip_network
from soupcli.networks.libraries import timm as timm_network
from soupcli.networks.libraries import torchvision as torchvision_network
from soupcli.networks.libraries import transformers as transformers_network
from soupcli.networks.libraries import user_python as python_network
from soupcli.recipe.networks import NetworkSpec, OpenClipNetwork, TimmNetwork, TransformersNetwork

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.networks.network import Network

_BUILDERS: dict[str, Callable[[Any, Path], Network]] = {
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
    folder = checkpoint.folder
    spec = spec or spec_of_folder(folder)
    if spec is None:
        raise NetworkError(
            f"{folder}: which network are these weights of? Neither model: in the recipe nor a config.json says",
            hint="add a line to soup.yaml: model: {timm: vit_base_patch16_224}, or model: {python: 'net.py:build'}",
        )
    return _BUILDERS[type(spec).__name__](spec, folder)


def spec_of_folder(folder: Path) -> NetworkSpec | None:
    """What the configuration beside the weights says about their network, None where it says nothing."""
    if (folder / "open_clip_config.json").is_file():
        return OpenClipNetwork(open_clip="auto")
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    if "model_type" in config:
        return TransformersNetwork(transformers="auto")
    if "architecture" in config:
        return TimmNetwork(timm="auto")
    return None
