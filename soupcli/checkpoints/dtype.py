"""The dtypes of tensors, by name, for headers, plans, keys and reports that work without torch.

Dtype.BFLOAT16.value, Dtype.BFLOAT16.itemsize         # "bfloat16", 2
torch.empty(spec.shape, dtype=spec.dtype.torch)       # the one way to torch's own
Dtype.of(tensor.dtype)                                # and back
"""

from __future__ import annotations

import re
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from soupcli.late import torch

if TYPE_CHECKING:
    from torch import dtype as TorchDtype


class Dtype(Enum):
    """A dtype. Its value is torch's name of it."""

    BOOL = "bool"
    UINT8 = "uint8"
    INT8 = "int8"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT32 = "uint32"
    INT32 = "int32"
    UINT64 = "uint64"
    INT64 = "int64"
    FLOAT8_E4M3FN = "float8_e4m3fn"
    FLOAT8_E5M2 = "float8_e5m2"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    COMPLEX64 = "complex64"
    COMPLEX128 = "complex128"

    __hash__ = object.__hash__  # there is one of each; Enum's own is Python code, and every tensor's is asked for

    def __str__(self) -> str:
        """As torch writes it: torch.float32."""
        return f"torch.{self.value}"

    @cached_property
    def torch(self) -> TorchDtype:
        """The dtype of torch."""
        found: TorchDtype = getattr(torch, self.value)
        return found

    @classmethod
    def of(cls, dtype: TorchDtype) -> Dtype:
        """Return the dtype of torch's `dtype`. Raises ValueError for one that is not listed here."""
        return cls(str(dtype).removeprefix("torch."))

    @cached_property
    def itemsize(self) -> int:
        """The bytes of an element, from the bits in its name."""
        bits = re.search(r"\d+", self.value)
        return int(bits.group()) // 8 if bits is not None else 1

    @cached_property
    def is_floating_point(self) -> bool:
        """Whether it holds real numbers other than integers."""
        return "float" in self.value

    @cached_property
    def is_complex(self) -> bool:
        """Whether it holds complex numbers."""
        return "complex" in self.value

    @cached_property
    def is_averaged(self) -> bool:
        """Whether tensors of this dtype are averaged. Integers and booleans are copied."""
        return self.is_floating_point or self.is_complex

    @property
    def real(self) -> Dtype:
        """The dtype of the real numbers in an element."""
        return {Dtype.COMPLEX64: Dtype.FLOAT32, Dtype.COMPLEX128: Dtype.FLOAT64}.get(self, self)

    def common(self, other: Dtype) -> Dtype:
        """Return the narrowest dtype that holds the numbers of both, if both are averaged, else the wider one.

        torch.promote_types knows none for 8 bits beside others: float16 holds the numbers of both kinds of them.
        """
        if self is other:
            return self
        both = {Dtype.FLOAT16 if one.is_floating_point and one.itemsize == 1 else one for one in (self, other)}
        if both == {Dtype.FLOAT16, Dtype.BFLOAT16}:
            return Dtype.FLOAT32
        if both == {Dtype.FLOAT64, Dtype.COMPLEX64}:
            return Dtype.COMPLEX128
        return max(both, key=lambda one: (one.is_complex, one.is_averaged, one.itemsize))


EIGHT_BITS = frozenset({Dtype.INT8, Dtype.UINT8})  # of integers
