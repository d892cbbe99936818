"""Running statistics estimated again: of all inputs at once, in no particular order, and everything else untouched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from soupcli.networks.batch_norm import BATCH, calibration_batches, layers_with_statistics, recalibrate


def build() -> nn.Sequential:
    """Two batch norms, a dropout that must stay quiet, and layers without statistics."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(3, momentum=0.3),
        nn.Conv2d(3, 4, 3),
        nn.Dropout(0.5),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.GroupNorm(2, 4),
    ).eval()


def test_first_layer_has_the_moments_of_all_inputs() -> None:
    """However the inputs are cut into batches, the first layer's statistics are those of the whole set."""
    inputs = torch.randn(50, 3, 8, 8) * torch.tensor([1.0, 3.0, 0.2]).view(3, 1, 1) + 5
    for sizes in ([50], [25, 25], [7, 13, 30]):
        net = build()
        recalibrate(net, net, inputs.split(sizes))
        assert torch.allclose(net.get_buffer("0.running_mean"), inputs.mean(dim=(0, 2, 3)), rtol=1e-6)
        assert torch.allclose(net.get_buffer("0.running_var"), inputs.var(dim=(0, 2, 3)), rtol=1e-5)


def test_one_batch_is_what_torch_does() -> None:
    """Over one batch the statistics of every layer are those of torch in training mode with momentum 1."""
    inputs = torch.randn(20, 3, 8, 8)
    net, reference = build(), build()
    recalibrate(net, net, [inputs])
    for layer in layers_with_statistics(reference):
        layer.momentum = 1.0
        layer.train()
    reference(inputs)
    for own, wanted in zip(layers_with_statistics(net), layers_with_statistics(reference), strict=True):
        assert torch.allclose(own.get_buffer("running_mean"), wanted.get_buffer("running_mean"), atol=1e-6)
        assert torch.allclose(own.get_buffer("running_var"), wanted.get_buffer("running_var"), rtol=1e-5)


def test_leaves_everything_else() -> None:
    """Momentum, mode, weights and hooks are as before, and dropout was not active."""
    net = build()
    weights = {name: tensor.clone() for name, tensor in net.named_parameters()}
    momenta = [layer.momentum for layer in layers_with_statistics(net)]
    recalibrate(net, net, [torch.randn(8, 3, 8, 8)])
    assert not any(part.training for part in net.modules())
    assert [layer.momentum for layer in layers_with_statistics(net)] == momenta
    assert all(torch.equal(tensor, weights[name]) for name, tensor in net.named_parameters())
    assert not any(part._forward_pre_hooks for part in net.modules())
    assert len(layers_with_statistics(net)) == 2


def test_a_failure_leaves_evaluation_mode() -> None:
    """Where a batch fails, no layer stays in training mode and no hook stays behind."""
    net = build()
    with pytest.raises(RuntimeError):
        recalibrate(net, net, [torch.randn(8, 5, 8, 8)])
    assert not any(part.training for part in net.modules())
    assert not any(part._forward_pre_hooks for part in net.modules())


@pytest.mark.parametrize("examples", [2, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 1, 1000])
def test_batches(examples: int) -> None:
    """Every example once, in an order of its own that is the same each time, and no batch of one."""
    batches = calibration_batches(examples)
    order = torch.cat(batches)
    assert torch.equal(order.sort().values, torch.arange(examples))
    assert torch.equal(order, torch.cat(calibration_batches(examples)))
    assert 2 <= min(map(len, batches)) <= max(map(len, batches)) <= BATCH
    assert examples < 10 or not torch.equal(order, torch.arange(examples))
