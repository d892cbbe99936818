"""What tests of formats share: a checkpoint read whole, and a small network to save."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import CheckpointError


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


def assert_reads_or_refuses(path: Path) -> None:
    """A file opens as a checkpoint whose tensors can be read, or is refused in one line that names it."""
    try:
        checkpoint = open_checkpoint(path)
        for name in checkpoint.tensors:
            read(checkpoint, name)
    except CheckpointError as refused:
        assert "\n" not in str(refused)
        assert str(path) in str(refused)


def assert_broken_copies_are_refused(path: Path, data: st.DataObject) -> None:
    """Cut or change a file of torch.save as hypothesis draws it: it is read, or refused in one line."""
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    broken = path.with_name("broken.pt")
    broken.write_bytes(whole[: data.draw(st.sampled_from([len(whole), len(whole), len(whole) - 1, len(whole) // 2]))])
    assert_reads_or_refuses(broken)


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in row-major order."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def small_net(seed: int = 0) -> nn.Sequential:
    """A network with parameters, floating buffers and an integer one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
