"""Dtypes by name: what they say of themselves is what torch says, and they are known without it."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from soupcli.checkpoints.dtype import Dtype


@pytest.mark.parametrize("dtype", Dtype)
def test_as_torch_says(dtype: Dtype) -> None:
    """Name, bytes and kind are those of torch's dtype, and the way there and back ends where it began."""
    assert Dtype.of(dtype.torch) is dtype
    assert str(dtype) == str(dtype.torch)
    assert dtype.itemsize == dtype.torch.itemsize
    assert (dtype.is_floating_point, dtype.is_complex) == (dtype.torch.is_floating_point, dtype.torch.is_complex)


def test_common_is_promotion() -> None:
    """The common dtype of what is averaged is torch's; 8 bits, of which torch knows none, count as float16."""
    for one, other in itertools.product((dtype for dtype in Dtype if dtype.is_averaged), repeat=2):
        wide = [torch.float16 if dtype.itemsize == 1 else dtype.torch for dtype in (one, other)]
        expected = one.torch if one is other else torch.promote_types(*wide)
        assert one.common(other).torch == expected, (one, other)


def test_known_without_torch() -> None:
    """Sizes and kinds need no torch; the way to its dtypes imports it."""
    code = (
        "import sys; from soupcli.checkpoints.dtype import Dtype;"
        "assert Dtype('bfloat16').itemsize == 2 and Dtype.FLOAT16.common(Dtype.BFLOAT16) is Dtype.FLOAT32;"
        "assert 'torch' not in sys.modules; Dtype.BOOL.torch; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
