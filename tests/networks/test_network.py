"""How inputs go into a network: dtypes, padding on the left, and pictures as torchvision normalises them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import Normalize
from torchvision.transforms.functional import convert_image_dtype

from soupcli.networks.network import Network, like_weights, mean_and_std


class Positions(nn.Module):
    """Logits that depend on the positions of tokens, on the rows beside them, and on nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        self.shapes.append(tuple(input_ids.shape))
        positions = torch.arange(1, input_ids.shape[1] + 1.0)[:, None]
        hidden = self.embedding(input_ids) * positions * attention_mask[..., None]
        return SimpleNamespace(logits=hidden.sum(dim=1))


ROWS = [[1, 2, 3], [4], [5, 6, 7], [8, 9]]


def padded(rows: list[list[int]], *, left: bool) -> dict[str, Tensor]:
    """A batch of rows."""
    longest = max(map(len, rows))
    fills = [[0] * (longest - len(row)) for row in rows]
    ids = [fill + row if left else row + fill for row, fill in zip(rows, fills, strict=True)]
    mask = [
        [0] * len(fill) + [1] * len(row) if left else [1] * len(row) + [0] * len(fill)
        for row, fill in zip(rows, fills, strict=True)
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize("left", [True, False])
def test_rows_are_as_they_are_alone(left: bool) -> None:
    """Padded on either side, each row has the logits that it has without padding, in its own place."""
    module = Positions()
    network = Network(module, tokenizer=SimpleNamespace(padding_side="left" if left else "right"))
    with torch.no_grad():
        logits = network.forward(padded(ROWS, left=left))
        assert sorted(module.shapes) == ([(1, 1), (1, 2), (2, 3)] if left else [(4, 3)])
        for row, own in zip(ROWS, logits, strict=True):
            assert torch.allclose(own, network.forward(padded([row], left=left))[0])


def test_gradients_pass() -> None:
    """Rows that are put back in their places still have gradients."""
    module = Positions()
    network = Network(module, tokenizer=SimpleNamespace(padding_side="left"))
    network.forward(padded(ROWS, left=True))[1].sum().backward()
    assert module.embedding.weight.grad is not None
    assert module.embedding.weight.grad.abs().sum(dim=1).nonzero()[:, 0].tolist() == [4]


def test_logits_of_any_output() -> None:
    """An output with logits gives them, any other one is the logits."""
    inputs = torch.randn(2, 3)
    assert torch.equal(Network(nn.Identity()).forward(inputs), inputs)

    class Output(nn.Module):
        def forward(self, inputs: Tensor) -> Any:
            return SimpleNamespace(logits=inputs * 2, loss=None)

    assert torch.equal(Network(Output()).forward(inputs), inputs * 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    """Floating inputs take the dtype of the weights, integers and booleans keep their own."""
    module = nn.Linear(3, 2).to(dtype)
    assert Network(module).forward(torch.randn(1, 3)).dtype == dtype
    assert like_weights(module, torch.tensor([1, 2])).dtype == torch.int64
    assert like_weights(module, torch.tensor([True])).dtype == torch.bool
    assert like_weights(nn.Identity(), torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def test_mean_and_std() -> None:
    """uint8 pictures become what torchvision makes of them, to the bit, and are themselves left alone."""
    pictures = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    before = pictures.clone()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = Normalize(mean, std)(convert_image_dtype(pictures))
    assert torch.equal(mean_and_std(mean, std)(pictures), wanted)
    assert torch.equal(pictures, before)
