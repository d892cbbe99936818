"""CLIP and ALIGN of transformers, with a tower for pictures and one for text: as zero-shot classifier, or with a head.

The classifier is the normalised mean of the normalised embeddings of all templates for each class, as in Radford et al.
2021 (arXiv:2103.00020), section 3.1.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from soupcli.late import functional, torch
from soupcli.networks.network import Batch, Forward, like_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

# By model_type: what cosine similarities are multiplied by.
_SCALES: dict[str, Callable[[Any], Tensor]] = {
    "clip": lambda module: module.logit_scale.exp(),
    "align": lambda module: 1 / module.temperature,
}


def is_dual_encoder(module: nn.Module) -> bool:
    """Whether a network is CLIP or ALIGN, with both towers."""
    config: Any = getattr(module, "config", None)
    return getattr(config, "model_type", None) in _SCALES and hasattr(module, "get_text_features")


def image_embedding(module: Any, pictures: Tensor) -> Tensor:
    """Return the embedding of pictures, [N, D], not normalised."""
    return _pooled(module.get_image_features(pixel_values=pictures))


def embedding_size(module: Any) -> int:
    """Return the size D of an embedding."""
    return int(module.config.projection_dim)


def zero_shot(tokenizer: Any) -> Callable[[nn.Module, Sequence[str], Sequence[str]], Forward]:
    """Return the function that builds a classifier from the present weights, class names and templates."""
    return partial(_zero_shot, tokenizer)


def _zero_shot(tokenizer: Any, module: Any, classnames: Sequence[str], templates: Sequence[str]) -> Forward:
    classifier_kd = torch.stack([_class_embedding(tokenizer, module, name, templates) for name in classnames])

    def forward(inputs: Batch) -> Tensor:
        assert isinstance(inputs, torch.Tensor)
        features_nd = functional.normalize(image_embedding(module, like_weights(module, inputs)), dim=-1)
        return _SCALES[module.config.model_type](module) * features_nd @ classifier_kd.T

    return forward


def _class_embedding(tokenizer: Any, module: Any, name: str, templates: Sequence[str]) -> Tensor:
    encoded = tokenizer([template.format(name) for template in templates], padding=True, return_tensors="pt")
    embeddings_td = _pooled(module.get_text_features(**encoded.to(next(module.parameters()).device)))
    return functional.normalize(functional.normalize(embeddings_td, dim=-1).mean(dim=0), dim=-1)


def _pooled(output: Any) -> Tensor:
    """Return the embedding. transformers before 5 returns it directly."""
    pooled: Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return pooled
