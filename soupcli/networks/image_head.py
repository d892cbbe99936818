"""`head: 1000`: CLIP or ALIGN as a classifier of pictures, by a linear layer on the normalised image embedding.

Weights are named as the authors of model soups save theirs (github.com/mlfoundations/model-soups, utils.py): those of
the network begin with `model.`, those of the layer with `classification_head.`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Embed = Callable[[Any, Tensor], Tensor]  # network and pictures [N, C, H, W] to embeddings [N, D]


class ImageHead(nn.Module):
    """Pictures to logits [N, classes]."""

    def __init__(self, model: nn.Module, embed: Embed, *, features: int, classes: int) -> None:
        super().__init__()
        self.model = model
        self.classification_head = nn.Linear(features, classes)
        self._embed = embed

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits [N, classes]."""
        embedding_nd = self._embed(self.model, pictures)
        logits: Tensor = self.classification_head(embedding_nd / embedding_nd.norm(dim=-1, keepdim=True))
        return logits
