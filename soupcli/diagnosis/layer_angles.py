"""Angles between all pairs of ingredients in each layer, of which a large family has gigabytes.

angle_lkk = LayerAngles()
angle_lkk.append(angle_kk)                                # of one layer, in degrees
angle_lkk[0], angle_lkk.rows(0, 10)                       # float32 [k, k] of the layer, [l, 10, k] of all
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterable, Iterator

from soupcli.files.reading import write_at
from soupcli.files.unfinished import nameless_file
from soupcli.mixing.arithmetic.arrays import Array, Library, bytes_of, cast, library_of

HELD = 1 << 26  # bytes in memory: two hundred layers of 280 ingredients
SINGLE = 4  # bytes of an angle


class LayerAngles:
    """Matrices [k, k] of one library in float32: the first layers in memory, the rest in a file without a name."""

    def __init__(self, angle_lkk: Iterable[Array] = ()) -> None:
        self._layers: list[Array | int] = []  # a matrix, or the place of its first byte in the file
        self._count, self._library = 0, None  # of ingredients; of the matrices
        self._held = self._written = 0  # bytes
        self._file = -1
        for angle_kk in angle_lkk:
            self.append(angle_kk)

    def append(self, angle_kk: Array) -> None:
        """Add the next layer. It stays in memory if no disk has room for it."""
        self._count, self._library = len(angle_kk), library_of(angle_kk)
        single_kk = cast(angle_kk, "float32")
        data = bytes_of(single_kk)
        if self._layers and self._held + len(data) > HELD:
            with contextlib.suppress(OSError):
                self._layers.append(self._write(data))
                return
        self._held += len(data)
        self._layers.append(single_kk)

    def _write(self, data: memoryview) -> int:
        if self._file < 0:
            self._file = nameless_file()
            weakref.finalize(self, os.close, self._file)
        place = self._written
        write_at(self._file, data, place)
        self._written += len(data)
        return place

    def __len__(self) -> int:
        """Count the layers."""
        return len(self._layers)

    def __iter__(self) -> Iterator[Array]:
        """Yield the matrix of each layer, of which one at a time is in memory."""
        return (self._rows(layer, 0, self._count) for layer in self._layers)

    def rows(self, first: int, last: int) -> Array:
        """Return rows `first` to `last` of the matrices of at least one layer: float32 [l, last - first, k]."""
        xp: Library = self._library
        return xp.stack([self._rows(layer, first, min(last, self._count)) for layer in self._layers])

    def _rows(self, layer: Array | int, first: int, last: int) -> Array:
        if not isinstance(layer, int):
            return layer[first:last]
        xp: Library = self._library
        found = xp.empty((last - first, self._count), dtype=xp.float32)
        os.preadv(self._file, [bytes_of(found)], layer + first * self._count * SINGLE)
        return found
