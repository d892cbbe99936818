"""`model:`, one class for each library that builds a network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from soupcli.recipe.section import Section
from soupcli.recipe.values import PythonReference


class NetworkSpec(Section):
    """Any network; `library` is the module whose `LIBRARY` builds it."""

    library: ClassVar[str]
    code_keys: ClassVar[tuple[str, ...]] = ()  # whose values are functions of the user's

    args: dict[str, Any] = {}
    """Keyword arguments for the builder."""

    @property
    def code(self) -> list[str]:
        """The user's functions that the network runs."""
        return [str(value) for key, value in self if key in self.code_keys and value is not None]


class TimmNetwork(NetworkSpec):
    library: ClassVar[str] = "soupcli.networks.libraries.timm"

    timm: str
    """Name of a network for `timm.create_model`."""
    test_size: bool = False
    """Pictures at the size and crop with which timm's own `validate.py` tests the network, if these are others than in
    its training."""


class TransformersNetwork(NetworkSpec):
    library: ClassVar[str] = "soupcli.networks.libraries.transformers"

    transformers: str
    """`auto` (the class that the checkpoint's own config.json names) or a class of transformers."""
    head: int | None = Field(default=None, gt=0)
    """Classes of a linear layer on the normalised image embedding of CLIP or ALIGN. Weights are then named `model.*`
    and `classification_head.*`, as the authors of model soups save theirs."""


class SentenceTransformersNetwork(NetworkSpec):
    library: ClassVar[str] = "soupcli.networks.libraries.sentence_transformers"

    sentence_transformers: Literal["auto"]
    """`auto`: the modules that the checkpoint's own modules.json lists. It gives embeddings, for `python:` sets."""


class OpenClipNetwork(NetworkSpec):
    library: ClassVar[str] = "soupcli.networks.libraries.open_clip"

    open_clip: str
    """Name of a network for `open_clip.create_model`."""
    head: int | None = Field(default=None, gt=0)
    """Classes of a linear layer on the normalised image embedding. Weights are then named `model.*` and
    `classification_head.*`, as the authors of model soups save theirs."""


class TorchvisionNetwork(NetworkSpec):
    library: ClassVar[str] = "soupcli.networks.libraries.torchvision"

    torchvision: str
    """Name of a network for `torchvision.models.get_model`."""


class PythonNetwork(NetworkSpec):
    library: ClassVar[str] = "soupcli.networks.libraries.user_python"
    code_keys: ClassVar[tuple[str, ...]] = ("python", "transform")

    python: PythonReference
    """`file.py:function`; the function returns the `nn.Module`."""
    transform: PythonReference | None = None
    """`file.py:function` from a PIL picture to a tensor, for sets of pictures."""


NETWORKS: dict[str, type[NetworkSpec]] = {
    "timm": TimmNetwork,
    "transformers": TransformersNetwork,
    "sentence_transformers": SentenceTransformersNetwork,
    "open_clip": OpenClipNetwork,
    "torchvision": TorchvisionNetwork,
    "python": PythonNetwork,
}
