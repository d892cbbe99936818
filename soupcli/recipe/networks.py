"""`model:`, one class for each library that builds a network."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, Tag

from soupcli.recipe.section import Section, kind_among
from soupcli.recipe.values import PythonReference


class _Network(Section):
    library: ClassVar[str]  # the module that builds such networks

    args: dict[str, Any] = {}
    """Keyword arguments for the builder."""


class TimmNetwork(_Network):
    library: ClassVar[str] = "soupcli.networks.libraries.timm"

    timm: str
    """Name of a network for `timm.create_model`."""


class TransformersNetwork(_Network):
    library: ClassVar[str] = "soupcli.networks.libraries.transformers"

    transformers: str
    """`auto` (the class that the checkpoint's own config.json names) or a class of transformers."""
    head: int | None = Field(default=None, gt=0)
    """Classes of a linear layer on the normalised image embedding of CLIP or ALIGN. Weights are then named `model.*`
    and `classification_head.*`, as the authors of model soups save theirs."""


class OpenClipNetwork(_Network):
    library: ClassVar[str] = "soupcli.networks.libraries.open_clip"

    open_clip: str
    """Name of a network for `open_clip.create_model`."""
    head: int | None = Field(default=None, gt=0)
    """Classes of a linear layer on the normalised image embedding. Weights are then named `model.*` and
    `classification_head.*`, as the authors of model soups save theirs."""


class TorchvisionNetwork(_Network):
    library: ClassVar[str] = "soupcli.networks.libraries.torchvision"

    torchvision: str
    """Name of a network for `torchvision.models.get_model`."""


class PythonNetwork(_Network):
    library: ClassVar[str] = "soupcli.networks.libraries.user_python"

    python: PythonReference
    """`file.py:function`; the function returns the `nn.Module`."""
    transform: PythonReference | None = None
    """`file.py:function` from a PIL picture to a tensor, for sets of pictures."""


NETWORKS: dict[str, type[_Network]] = {
    "timm": TimmNetwork,
    "transformers": TransformersNetwork,
    "open_clip": OpenClipNetwork,
    "torchvision": TorchvisionNetwork,
    "python": PythonNetwork,
}
NetworkSpec = Annotated[
    Annotated[TimmNetwork, Tag("timm")]
    | Annotated[TransformersNetwork, Tag("transformers")]
    | Annotated[OpenClipNetwork, Tag("open_clip")]
    | Annotated[TorchvisionNetwork, Tag("torchvision")]
    | Annotated[PythonNetwork, Tag("python")],
    kind_among(tuple(NETWORKS)),
]
