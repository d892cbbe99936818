"""What adds up a mixture: numpy, and torch where it repays its import."""

from __future__ import annotations

import pytest
import torch

from soupcli.mixing import pieces
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.pieces import adding_library
from tests.helpers.exact_mean import InMemory


@pytest.mark.parametrize(
    ("dtype", "numbers", "expected"),
    [
        (torch.bfloat16, 8, "numpy"),
        (torch.bfloat16, 9, "torch"),
        (torch.float16, 9, "torch"),
        (torch.float32, 9, "numpy"),
    ],
)
def test_adding_library(dtype: torch.dtype, numbers: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of 16 bits of all members count, of which more than MANY are for torch."""
    monkeypatch.setattr(pieces, "MANY", 16)
    members = [InMemory(name, {"w": torch.ones(numbers, dtype=dtype), "n": torch.ones(99).short()}) for name in "ab"]
    assert adding_library(Mixture.uniform(members), members[0].tensors).__name__ == expected
