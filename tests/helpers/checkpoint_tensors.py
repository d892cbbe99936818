"""What tests of formats share: a checkpoint read whole, and a small network to save."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.open import How, open_checkpoint


def read_all(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name."""
    return {name: read(checkpoint, name) for name in checkpoint.tensors}


def read(checkpoint: Checkpoint, name: str, start: int = 0, count: int | None = None) -> Tensor:
    """A tensor of a checkpoint, or `count` of its elements."""
    spec = checkpoint.tensors[name]
    out = torch.empty(spec.shape if count is None else count, dtype=spec.dtype.torch)
    checkpoint.read(name, out, start=start)
    return out


def opened(path: Path, **how: object) -> dict[str, Tensor]:
    """Every tensor of the checkpoint at `path`."""
    return read_all(open_checkpoint(path, How(**how)))  # type: ignore[arg-type]


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """The same names, dtypes, shapes and bits."""
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert torch.equal(found[name].contiguous().view(-1).view(torch.uint8), bits(tensor)), name


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in row-major order."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def small_net(seed: int = 0) -> nn.Sequential:
    """A network with parameters, floating buffers and an integer one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
