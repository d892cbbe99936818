"""What torch counts of a forward pass is what one counts by hand, whatever fast path a layer takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from soupcli.networks.flops import count


def test_products_and_convolutions() -> None:
    """Two operations for each multiplication with its addition; norms and activations are free."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=3, padding=1),  # 8 x 6 x 6 outputs, 27 products each
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, kernel_size=3, groups=4),  # 8 x 4 x 4 outputs, 18 products each
        nn.Flatten(),
        nn.Linear(128, 10),
    ).eval()
    assert count(net, torch.randn(1, 3, 6, 6)) == 2 * (8 * 36 * 27 + 8 * 16 * 18 + 128 * 10)
    assert count(net, torch.randn(5, 3, 6, 6)) == 5 * count(net, torch.randn(1, 3, 6, 6))


@pytest.mark.parametrize("heads", [1, 4])
def test_attention(heads: int) -> None:
    """Projections, scores and their values, for any number of heads: 10 tokens of width 16."""
    layer = nn.MultiheadAttention(16, heads, batch_first=True).eval()
    tokens = torch.randn(1, 10, 16)
    wanted = 2 * (10 * 16 * 48 + 10 * 10 * 16 + 10 * 10 * 16 + 10 * 16 * 16)
    assert count(lambda x: layer(x, x, x, need_weights=False)[0], tokens) == wanted
    with torch.inference_mode():
        assert count(lambda x: layer(x, x, x, need_weights=False)[0], tokens) == wanted
    assert torch.backends.mha.get_fastpath_enabled()


def test_an_encoder_layer() -> None:
    """torch's own encoder layer, which has a fast path of its own."""
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True).eval()
    wanted = 2 * (10 * 16 * 48 + 2 * 10 * 10 * 16 + 10 * 16 * 16 + 2 * 10 * 16 * 32)

    def forward(x: Tensor) -> Tensor:
        made: Tensor = layer(x)
        return made

    assert count(forward, torch.randn(1, 10, 16)) == wanted  # type: ignore[arg-type]
