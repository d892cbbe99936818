"""What is said of checkpoints that can be averaged, but perhaps should not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.run.caveats import rounded_copies

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint


def saved(path: Path, seed: int, dtype: torch.dtype) -> Checkpoint:
    """Weights of a seed in a dtype."""
    generator = torch.Generator().manual_seed(seed)
    save_file({name: torch.randn(4, 300, generator=generator).to(dtype) for name in "ab"}, path)
    return open_checkpoint(path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounded_copy(tmp_path: Path, dtype: torch.dtype) -> None:
    """A copy with fewer digits is named with what it is a copy of, whichever comes first."""
    copy, one = saved(tmp_path / "a.safetensors", 0, dtype), saved(tmp_path / "b.safetensors", 0, torch.float32)
    said = rounded_copies([copy, one])
    assert said is not None
    assert said.startswith(f"{copy.path} holds the weights of {one.path}, rounded to {str(dtype)[6:]}: ")


def test_other_weights(tmp_path: Path) -> None:
    """Other weights in another dtype are no copy, nor are any if only one tensor is the same."""
    one, other = (saved(tmp_path / f"{seed}.safetensors", seed, torch.float32) for seed in (0, 1))
    assert rounded_copies([one, other, saved(tmp_path / "c.safetensors", 2, torch.float16)]) is None
    first = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    save_file({"a": first.half(), "b": first.half()}, tmp_path / "d.safetensors")
    assert rounded_copies([one, open_checkpoint(tmp_path / "d.safetensors")]) is None
