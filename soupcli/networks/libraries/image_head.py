"""A classifier of pictures from a CLIP network and a head on its embeddings."""

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
