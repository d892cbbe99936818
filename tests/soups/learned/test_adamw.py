"""AdamW on rows of a matrix, against torch's own on whole parameters."""

from __future__ import annotations

import json

import pytest
import torch

from soupcli.soups.learned.adamw import AdamW


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equals_torch(weight_decay: float) -> None:
    """Rows that move one after another, with a learning rate of each step, end where torch's parameter does."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    parameter = torch.nn.Parameter(start.clone())
    reference = torch.optim.AdamW([parameter], lr=0.1, weight_decay=weight_decay)
    ours = AdamW(start.clone())
    for number in range(1, 8):
        gradient = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        lr = 0.1 / number
        reference.param_groups[0]["lr"] = lr
        parameter.grad = gradient
        reference.step()
        for rows in (slice(0, 2), slice(2, 5)):
            ours.step(rows, gradient[rows], number=number, lr=lr, weight_decay=weight_decay)
    torch.testing.assert_close(ours.values, parameter.detach(), rtol=1e-14, atol=1e-15)


def test_state() -> None:
    """What goes through JSON goes on to the same bits."""
    generator = torch.Generator().manual_seed(0)
    first = AdamW(torch.randn(2, 3, generator=generator, dtype=torch.float64))
    first.step(slice(None), torch.randn(2, 3, generator=generator, dtype=torch.float64), number=1, lr=0.1)
    second = AdamW(torch.zeros(2, 3))
    second.restore(json.loads(json.dumps(first.state())))
    gradient = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    for one in (first, second):
        one.step(slice(None), gradient, number=2, lr=0.1)
    assert torch.equal(first.values, second.values)
