"""Which library adds up, and what the two name differently."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from soupcli.mixing.arithmetic.arrays import (
    Array,
    Library,
    Scratch,
    bytes_of,
    cast,
    copied,
    cpu_library,
    diagonal,
    library_of,
    median,
    places,
)

CHOICE = """
import sys
from soupcli.mixing.arithmetic.arrays import cpu_library
if sys.argv[1] == "torch":
    sys.modules["numpy"] = None  # which makes its import fail
assert cpu_library().__name__ == sys.argv[1]
assert ("torch" in sys.modules) == (sys.argv[1] == "torch")
"""


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_library_of_the_cpu(name: str) -> None:
    """numpy adds where it can be imported, and imports no torch; else torch does, and says nothing of that."""
    ran = subprocess.run([sys.executable, "-c", CHOICE, name], check=True, capture_output=True, text=True)
    assert ran.stderr == ""
    assert cpu_library().__name__ == "numpy"


@pytest.mark.parametrize("numbers", [np.array([0.0, -1.5, 3.0]), torch.tensor([0.0, -1.5, 3.0], dtype=torch.float64)])
def test_both_alike(numbers: Array) -> None:
    """What has two names does the same to an array and to a tensor."""
    assert library_of(numbers).__name__ == type(numbers).__module__
    assert cast(numbers, "int32").tolist() == [0, -1, 3]
    assert places(numbers != 0).tolist() == [1, 2]
    assert bytes_of(numbers) == np.array([0.0, -1.5, 3.0]).tobytes()
    other = copied(numbers)
    other[0] = 7.0
    assert numbers.tolist() == [0.0, -1.5, 3.0]
    assert cast(numbers, "float64") is not numbers


@pytest.mark.parametrize("library", [np, torch], ids=["numpy", "torch"])
def test_of_matrices(library: Library) -> None:
    """The lower median of two, NaN of nothing or of a NaN; the diagonal of the last two axes."""
    rows = library.asarray([[4.0, 1.0, 3.0, 2.0], [1.0, library.nan, 0.0, 0.0]])
    np.testing.assert_array_equal(median(rows, 1), [2.0, np.nan])
    np.testing.assert_array_equal(median(rows[:1], 0), [4.0, 1.0, 3.0, 2.0])
    np.testing.assert_array_equal(median(rows[:, :0], 1), [np.nan, np.nan])
    cubes = library.arange(18).reshape(2, 3, 3)
    assert diagonal(cubes).tolist() == [[0, 4, 8], [9, 13, 17]]


@pytest.mark.parametrize("library", [np, torch], ids=["numpy", "torch"])
def test_scratch(library: Library) -> None:
    """One use has one memory, whatever it is asked for as, until more is needed."""
    take = Scratch(library).take
    first = take("a", "float32", 2, 3)
    first[...] = 1.0
    assert take("a", "float32", 2, 3) is first
    assert take("a", "int32", 4).tolist() == [0x3F800000] * 4
    assert tuple(take("a", "float64", 50).shape) == (50,)
    assert take("b", "float32", 2, 3) is not first
