"""Angles of many layers, the first in memory and the rest in a file."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from soupcli.diagnosis import layer_angles
from soupcli.diagnosis.layer_angles import LayerAngles
from soupcli.mixing.arithmetic.arrays import Array, Library

EVERY = np.arange(5 * 4 * 4, dtype=np.float64).reshape(5, 4, 4) / 3


@pytest.fixture(params=[0, 2 * 4 * 4 * 4, 1 << 20], ids=["one", "two", "all"], autouse=True)
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many bytes of layers are held in memory."""
    monkeypatch.setattr(layer_angles, "HELD", request.param)


def check(kept: LayerAngles, every: Array, library: Library) -> None:
    single = every.astype(np.float32)
    assert len(kept) == len(single)
    for found, angle_kk in zip(kept, single, strict=True):
        assert type(found).__module__.partition(".")[0] == library.__name__
        np.testing.assert_array_equal(found, angle_kk)
    for first, last in ((0, 1), (1, 3), (3, 9)):
        np.testing.assert_array_equal(kept.rows(first, last), single[:, first:last])


@pytest.mark.parametrize("library", [np, torch], ids=["numpy", "torch"])
def test_the_same_wherever_they_are(library: Library) -> None:
    """Each layer, and rows of all, are what was added, of the same library, in memory and in the file."""
    kept = LayerAngles(library.asarray(angle_kk) for angle_kk in EVERY)
    check(kept, EVERY, library)
    check(kept, EVERY, library)  # what is read from the file may be read again
    kept.append(library.asarray(EVERY[0]))
    check(kept, np.concatenate([EVERY, EVERY[:1]]), library)


def test_a_part_of_a_matrix() -> None:
    """A matrix without a base's row and column, which is no contiguous one, is kept as it is."""
    check(LayerAngles(angle_kk[1:, 1:] for angle_kk in EVERY), EVERY[:, 1:, 1:], np)


def test_no_disk_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written stays in memory."""
    monkeypatch.setattr(layer_angles, "nameless_file", lambda: os.open("/dev/full", os.O_RDWR))
    check(LayerAngles(EVERY), EVERY, np)


def test_none() -> None:
    """Networks without matrices have no layers."""
    assert len(LayerAngles()) == 0 and not list(LayerAngles())
