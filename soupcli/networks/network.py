"""The interface of a network: the module, how its inputs are made, and how it computes logits.

`networks/libraries/` makes it from a model library, `evaluation/` feeds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


Batch: TypeAlias = "Tensor | dict[str, Tensor]"
Forward: TypeAlias = "Callable[[Batch], Tensor]"  # inputs to logits [N, K]


@dataclass(frozen=True)
class ImageTransform:
    """The transform of pictures in two halves. The first is done once for many evaluations.

    `decode` returns uint8 [C, H, W], or the network's own tensor if it normalises by itself. `normalise` returns the
    float batch [N, C, H, W]. `description` identifies the transform.
    """

    decode: Callable[[Any], Tensor]  # PIL.Image -> uint8 [C, H, W]
    normalise: Callable[[Tensor], Tensor]
    description: str
    mode: str = "RGB"
    source: str = "the network's own"  # where the transform comes from, for people
    settings: Any = None  # pictures.PictureSettings, if these few numbers say it all


class ClassFolders(NamedTuple):
    """How a library numbers the class folders of a set: `order` sorts their names.

    The class of a picture is the folder that holds it if `innermost`, else the folder directly below the set.
    """

    library: str
    order: Literal["text", "natural"] = "text"
    innermost: bool = False


IMAGE_FOLDER = ClassFolders("torchvision")  # torchvision.datasets.ImageFolder


class Outline(NamedTuple):
    """What recipe and configuration say about classes, before any network is built."""

    folders: ClassFolders = IMAGE_FOLDER
    label_names: tuple[str, ...] | None = None  # in the order of the logits
    transform: str | None = None  # where the transform of pictures comes from
    stated: Mapping[str, Sequence[str]] = {}  # names in other files beside the weights, by their place
    lists: Callable[[], Mapping[str, Sequence[str]]] = dict  # lists there whose keys do not say that they name classes


UNNAMED = Outline()


@dataclass(frozen=True)
class Network:
    """A module without weights, and the functions that prepare its inputs."""

    module: nn.Module
    pictures: ImageTransform | None = None
    tokenizer: Any = None
    outline: Outline = UNNAMED
    ignored_names: tuple[str, ...] = ()  # patterns of tensors that the library drops when it loads
    stored_names: Callable[[Iterable[str]], Mapping[str, str]] | None = None  # name in a file -> name in the module
    longest_input: int | None = None  # tokens that the network has positions for
    pad_token_id: int | None = None  # what the configuration pads with, if the tokenizer does not say
    zero_shot: Callable[[nn.Module, Sequence[str], Sequence[str]], Forward] | None = None  # class names, templates
    towers: tuple[str, ...] = ()  # parts that compute, if logits do not come from the module's own forward
    embeds: bool = False  # it gives embeddings of sentences and no logits
    answers: Callable[[nn.Module, Sequence[str]], Forward] | None = None  # of a network from text to text: label words

    def forward(self, inputs: Batch) -> Tensor:
        """Return logits [N, K] of a batch. Floating inputs are converted to the dtype of the weights.

        Left-padded rows are computed without padding, those of one length together. Networks that count positions from
        the first token would otherwise return other logits for a row in another batch.
        """
        if not isinstance(inputs, dict):
            return self._logits(like_weights(self.module, inputs))
        inputs = {name: like_weights(self.module, tensor) for name, tensor in inputs.items()}
        if getattr(self.tokenizer, "padding_side", "right") != "left" or "attention_mask" not in inputs:
            return self._logits(inputs)
        lengths_n = inputs["attention_mask"].sum(dim=1)
        order: list[Tensor] = []
        parts: list[Tensor] = []
        for length in sorted(set(lengths_n.tolist())):
            order.append((lengths_n == length).nonzero()[:, 0])
            parts.append(self._logits({name: tensor[order[-1], -length:] for name, tensor in inputs.items()}))
        return torch.cat(parts)[torch.cat(order).argsort()]

    def _logits(self, inputs: Batch) -> Tensor:
        output = self.module(**inputs) if isinstance(inputs, dict) else self.module(inputs)
        logits: Tensor = output.logits if hasattr(output, "logits") else output
        return logits


def like_weights(module: nn.Module, tensor: Tensor) -> Tensor:
    """Return a floating `tensor` in the dtype of the module's first floating parameter, and others unchanged."""
    if not tensor.is_floating_point():
        return tensor
    floating = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    return tensor.to(next(floating, tensor.dtype))


def mean_and_std(mean: Sequence[float], std: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """uint8 [N, C, H, W] to float in the order of operations of torchvision: divide by 255, minus mean, by std."""
    mean_c11 = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
    std_c11 = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)

    def normalise(pictures: Tensor) -> Tensor:
        unit = pictures.to(torch.float32).div_(255)
        return unit.sub_(mean_c11.to(unit.device)).div_(std_c11.to(unit.device))

    return normalise
