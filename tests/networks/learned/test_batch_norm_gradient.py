"""Gradients of running statistics, against differences of the loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from soupcli.networks.learned.batch_norm_gradient import statistics_of, through_statistics

STEP = 1e-6


class Clamped(nn.BatchNorm2d):
    """Batch norm and what follows it in one module, as timm's BatchNormAct2d is."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input).clamp_(min=-0.5)


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)]
    parts += [nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 3, 1), Clamped(3), nn.Flatten(), nn.Linear(48, 4)]
    module = nn.Sequential(*parts).double().eval()
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.3, 0.6) if name.endswith("var") else buffer.uniform_(-0.2, 0.2)
    return module


def loss_of(module: nn.Module) -> Tensor:
    inputs = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return nn.functional.cross_entropy(module(inputs), torch.arange(5) % 4)


def test_equals_differences() -> None:
    """Means and variances of layers with and without weights, before work in place and with more in the module."""
    module = network()
    plain = loss_of(module)
    leaves = statistics_of(module)
    assert len(leaves) == 6
    for leaf in leaves.values():
        leaf.requires_grad_(True)
    with through_statistics(module, leaves):
        loss = loss_of(module)
        loss.backward()
    assert torch.equal(loss, plain)
    for leaf in leaves.values():
        assert leaf.grad is not None and leaf.grad.abs().max() > 1e-4
        with torch.no_grad():
            for channel in range(3):
                ends = []
                for sign in (1, -1):
                    leaf[channel] += sign * STEP
                    ends.append(loss_of(module).item())
                    leaf[channel] -= sign * STEP
                slope = (ends[0] - ends[1]) / (2 * STEP)
                torch.testing.assert_close(leaf.grad[channel].item(), slope, rtol=1e-5, atol=1e-8)


def test_closed() -> None:
    """Once closed, nothing of it is left: no hooks, no gradients."""
    module = network()
    leaves = statistics_of(module)
    for leaf in leaves.values():
        leaf.requires_grad_(True)
    through_statistics(module, leaves).close()
    loss_of(module).backward()
    assert all(leaf.grad is None for leaf in leaves.values())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_a_batch_that_fails_leaves_no_mode() -> None:
    """An error inside a layer ends its mode too: what is computed next is computed as ever."""
    module = network()
    with through_statistics(module, statistics_of(module)):
        with pytest.raises(RuntimeError):
            module.get_submodule("1")(torch.zeros(2, 7, 3, 3, dtype=torch.float64))
        assert torch.overrides._get_current_function_mode_stack() == []
