"""Distances and angles of a family of ingredients, added up layer by layer, and what follows from them.

    adding = Spread()
    for geometry in measure_layers([base, *ingredients], groups_of(names, base), quick=True):
        adding.add(geometry, has_base=True)
    spread = adding.distances()                               # WeightDistances

Matrices of only one layer are in memory, and some angles (see layer_angles.py).

Shapes: k ingredients, l layers of weight matrices. Biases and norms are left out of angles. Directions of biases are
random (those of one layer were at 90 degrees in a healthy family), and norms near 1 have the same direction in all
networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from soupcli.diagnosis.layer_angles import LayerAngles
from soupcli.mixing.arithmetic.arrays import Array, diagonal, library_of, median, places, quiet
from soupcli.networks.geometry import Geometry, angles, distances, lengths
from soupcli.networks.layer_names import layers_by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint

# In healthy families fine-tuned from one start (ViTs on digits and pictures, BERT on sentences) whole weights are at
# 0 to 25 degrees, single layers at up to 35; of networks trained from one start at a ruinous rate the median layer at
# up to 71; networks from different seeds at 85 to 95.
STRANGERS = 75.0
# Times as far from the base as from the nearest neighbour: ingredients of a sweep stand at 1.2 to 2.9 from their start,
# and at 0.65 to 1.25 from one more run of its middle rates. Scores and lengths of rows tell these apart.
AMONG = 0.6, 1.4
FEWEST_AMONG = 4
# The ingredient farthest from the others of a sweep with its start: 2.6 to 3.2 times as far from the start, and at 1.2
# to 1.6 times as large an angle to the others' offsets. With one more run of the highest rate as base: 0.4 to 1.2, and
# 1.9 to 2.6 times, 60 to 73 degrees.
OUTSIDE = 1.4  # times as far from the others as these are
NO_FARTHER = 1.7
TURNED = 1.65
TURNED_ANGLE = 45.0
UNEVEN = 5.0
BESIDES = " (biases, norms)"
# A layer that was made anew begins at 90 degrees to another, and training on the same labels brings both closer: a
# linear head of few inputs to 70. Heads that all began at zero were at less than 30.
NEW_LAYER = 60.0
# Up to where the median layer shows that the rest has a common start and did not go far.
IN_LINE = 25.0
SHORTEST = 1e-300  # length that is divided by
TOGETHER = 1 << 22  # angles of which medians are taken at once


class OutOfLine(NamedTuple):
    """Layers that are new in one of a pair: at a wide angle while the median layer is not."""

    layer: int  # with the widest such angle
    pair: tuple[int, int]
    angle: float
    others_k: list[int]  # how many others have some such layer


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightDistances:
    """Distances and angles between the ingredients' weights."""

    layers: list[str]  # of matrices
    angle_lkk: LayerAngles  # degrees between whole weights; 0 if one has no length
    whole_kk: Array  # degrees between all matrices together
    distance_kk: Array  # of all tensors
    from_mean_k: Array  # distance of all tensors from the mean
    length_k: Array  # of all matrices
    length_lk: Array  # of the matrices of each layer
    moved_lk: Array  # of matrices: from the base, else the median distance to the others
    from_base_k: Array | None  # of all tensors
    offset_kk: Array | None  # degrees between offsets from the base
    base_angle_k: Array | None  # degrees between whole weights and the base, in the median layer
    scatter: dict[str, float]  # layer -> distance from the mean of the ingredients, relative to the mean's length

    @cached_property
    def closeness_kk(self) -> Array:
        """Angles between whole weights in the median layer, in degrees, so that a new head does not count."""
        if not self.layers:
            return 0 * self.distance_kk
        xp, count = library_of(self.distance_kk), len(self.distance_kk)
        rows = max(1, TOGETHER // (count * len(self.layers)))
        return xp.concatenate([median(self.angle_lkk.rows(first, first + rows), 0) for first in range(0, count, rows)])

    @cached_property
    def out_of_line(self) -> OutOfLine | None:
        """The layers that are new in one of a pair; None if no layer is."""
        in_line_kk = self.closeness_kk <= IN_LINE
        new_kk = in_line_kk & ~in_line_kk
        widest = (0.0, 0, 0)  # angle, layer, pair
        for layer, angle_kk in enumerate(self.angle_lkk):
            these_kk = (angle_kk >= NEW_LAYER) & in_line_kk
            if bool(these_kk.any()):
                new_kk |= these_kk
                angle_kk = library_of(angle_kk).where(these_kk, angle_kk, 0.0)
                pair = int(angle_kk.argmax())
                widest = max(widest, (float(angle_kk.reshape(-1)[pair]), -layer, -pair))
        if not widest[0]:
            return None
        count = len(in_line_kk)
        return OutOfLine(-widest[1], divmod(-widest[2], count), widest[0], new_kk.sum(axis=1).tolist())

    @property
    def base_is_among_them(self) -> bool:
        """Whether most ingredients are about as far from the base as from their nearest neighbour.

        False for runs that moved by very different lengths: those that hardly moved are close to the start anyway.
        """
        if self.from_base_k is None or len(self.from_base_k) < FEWEST_AMONG:
            return False
        if float(self.from_base_k.max()) > UNEVEN * float(self.from_base_k.min()):
            return False
        xp = library_of(self.from_base_k)
        nearest_k = xp.amin(beside_diagonal(self.distance_kk, math.inf), axis=1)
        with quiet(xp):
            ratio = float(median(without_nan(self.from_base_k / nearest_k), 0))
        return AMONG[0] < ratio < AMONG[1]

    @property
    def base_is_beside_them(self) -> bool:
        """Whether the ingredient that is farthest from the others is no farther from the base, in another direction.

        Runs that began at the base would be the farther from it the farther they went. Seen from one more run of a
        high rate, those that went less far all lie in the direction of the start. A run that hardly moved is at its
        start, and far from all that did.
        """
        if self.from_base_k is None or self.offset_kk is None or len(self.from_base_k) < FEWEST_AMONG:
            return False
        out_k = _medians_of_others(self.distance_kk)
        angle_k = _medians_of_others(without_nan(self.offset_kk))
        far_k = self.times_as_far(range(len(self.from_base_k)))
        one = self.outermost
        out, far, angle = (
            float(of_k[one]) / max(median_of_others(of_k, one), 1e-9) for of_k in (out_k, far_k, angle_k)
        )
        no_farther = 1 / UNEVEN < far < NO_FARTHER
        return out > OUTSIDE and no_farther and angle > TURNED and float(angle_k[one]) > TURNED_ANGLE

    @property
    def outermost(self) -> int:
        """The ingredient that is farthest from the others."""
        return int(_medians_of_others(self.distance_kk).argmax())

    def times_as_far(self, group: Sequence[int]) -> list[float]:
        """Return each member's distance from the start, relative to its group's median, in the median moved layer."""
        moved_lk = self.moved_lk[:, list(group)]
        usual_l = median(moved_lk, 1)
        ratio_lk = moved_lk[usual_l > 0] / usual_l[usual_l > 0][:, None]
        found: list[float] = median(ratio_lk, 0).tolist() if len(ratio_lk) else [1.0] * len(group)
        return found

    def clusters(self) -> list[list[int]]:
        """Ingredients that are no strangers to one another, the largest group first."""
        near_kk = self.closeness_kk < STRANGERS
        left_k = library_of(near_kk).zeros(len(near_kk)) == 0
        groups: list[list[int]] = []
        while left_k.any():
            group: list[int] = []
            todo = places(left_k)[:1].tolist()
            left_k[todo] = False
            while todo:
                one = todo.pop()
                group.append(one)
                near_k = near_kk[one] & left_k
                left_k &= ~near_k
                todo += places(near_k).tolist()
            groups.append(sorted(group))
        return sorted(groups, key=lambda group: (-len(group), group))


def groups_of(names: Sequence[str], checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return tensors by layer, with matrices separate from biases and norms."""
    groups: dict[str, list[str]] = {}
    for layer, members in layers_by_name(names).items():
        for name in members:
            shape = checkpoint.tensors[name].shape
            matrix = sum(size > 1 for size in shape) > 1
            groups.setdefault(layer if matrix else layer + BESIDES, []).append(name)
    return groups


@dataclass
class Spread:
    """Adds up the geometry of layers, of one library and of the same ingredients."""

    _layers: list[str] = field(default_factory=list)
    _angle_lkk: LayerAngles = field(default_factory=LayerAngles)
    _length_lk: list[Array] = field(default_factory=list)
    _moved_lk: list[Array] = field(default_factory=list)  # without the base: from the others
    _from_base_lk: list[Array] = field(default_factory=list)
    _base_angle_lk: list[Array] = field(default_factory=list)
    _scatter: dict[str, float] = field(default_factory=dict)
    _centred_kk: Array = 0.0
    _whole_kk: Array = 0.0
    _about_kk: Array = None

    def add(self, geometry: Geometry, *, has_base: bool) -> None:
        """Add a layer. `has_base`: its first checkpoint is the base."""
        ((layer,), at) = geometry.layers, int(has_base)
        centred_kk = _centred(geometry.gram_lkk[0, at:, at:])
        whole_kk = geometry.whole()[0]
        self._centred_kk = self._centred_kk + centred_kk
        spread = float(diagonal(centred_kk).mean().clip(min=0)) ** 0.5
        length = float(whole_kk[at:, at:].mean().clip(min=0)) ** 0.5
        self._scatter[layer] = spread / max(length, SHORTEST)
        about_kk = geometry.about(0)[0] if has_base else None
        if about_kk is not None:
            self._about_kk = about_kk if self._about_kk is None else self._about_kk + about_kk
        if layer.endswith(BESIDES):
            return
        self._layers.append(layer)
        angle_kk = without_nan(angles(whole_kk))
        self._angle_lkk.append(angle_kk[at:, at:])
        self._length_lk.append(lengths(whole_kk[at:, at:]))
        self._whole_kk = self._whole_kk + whole_kk[at:, at:]
        if about_kk is not None:
            self._from_base_lk.append(lengths(about_kk))
            self._base_angle_lk.append(angle_kk[0, 1:])
        else:
            self._moved_lk.append(_to_others(centred_kk))

    def distances(self) -> WeightDistances:
        """Return the distances and angles of at least one layer."""
        xp = library_of(self._centred_kk)
        none_lk, about_kk = self._centred_kk[:0], self._about_kk
        moved_lk = self._moved_lk if about_kk is None else self._from_base_lk
        whole_kk = self._whole_kk if self._layers else 0 * self._centred_kk
        return WeightDistances(
            layers=self._layers,
            angle_lkk=self._angle_lkk,
            whole_kk=angles(whole_kk),
            distance_kk=distances(self._centred_kk),
            from_mean_k=lengths(self._centred_kk),
            length_k=lengths(whole_kk),
            length_lk=xp.stack(self._length_lk) if self._layers else none_lk,
            moved_lk=xp.stack(moved_lk) if moved_lk else none_lk,
            from_base_k=lengths(about_kk) if about_kk is not None else None,
            offset_kk=angles(about_kk) if about_kk is not None else None,
            base_angle_k=median(xp.stack(self._base_angle_lk), 0) if self._base_angle_lk else None,
            scatter=dict(sorted(self._scatter.items(), key=lambda item: -item[1])),
        )


def without_nan(array: Array) -> Array:
    """Return the array with 0 in place of each NaN."""
    return library_of(array).nan_to_num(array, nan=0.0)


def beside_diagonal(of_kk: Array, on_it: float) -> Array:
    """Return the matrix with this number on its diagonal."""
    xp, every_k = library_of(of_kk), library_of(of_kk).arange(len(of_kk))
    return xp.where(every_k[:, None] == every_k, on_it, of_kk)


def median_of_others(of_k: Sequence[float] | Array, one: int) -> float:
    """Return the lower median of all numbers but one's; NaN if there are none."""
    others = sorted(float(number) for other, number in enumerate(of_k) if other != one)
    return others[(len(others) - 1) // 2] if others else math.nan


def _centred(gram_kk: Array) -> Array:
    """Return inner products of offsets from the mean of these points, given those of offsets from any point."""
    row_k, column_k = gram_kk.mean(axis=1), gram_kk.mean(axis=0)
    centred_kk = gram_kk - row_k[:, None]
    centred_kk -= column_k - row_k.mean()
    return centred_kk


def _medians_of_others(of_kk: Array) -> Array:
    """Return the median of each row without its own column."""
    xp, count = library_of(of_kk), len(of_kk)
    other_kk = beside_diagonal(xp.ones(of_kk.shape), 0.0) > 0
    return median(of_kk[other_kk].reshape(count, count - 1), 1)


def _to_others(centred_kk: Array) -> Array:
    """Return the median distance of each to the others; 0 of one alone."""
    return _medians_of_others(distances(centred_kk)) if len(centred_kk) > 1 else 0 * diagonal(centred_kk)
