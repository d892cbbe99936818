"""The facts about a family of ingredients, as numbers from which verdicts are made.

Shapes: k ingredients, l layers of weight matrices. Biases and norms are left out of angles. Directions of biases are
random (those of one layer were at 90 degrees in a healthy family), and norms near 1 have the same direction in all
networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from soupcli.diagnosis.barrier import LOSS, Barrier
from soupcli.evaluation.paired_difference import PairedDifference, difference
from soupcli.mixing.arithmetic.arrays import Array, diagonal, library_of, median, places, quiet
from soupcli.networks.geometry import Geometry, angles, distances, layers_by_name, lengths

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.compare.differences import CheckpointDifference
    from soupcli.checkpoints.compare.settings import Setting
    from soupcli.evaluation.score import Score

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


class WeightDistances(NamedTuple):
    """Distances and angles between the ingredients' weights."""

    layers: list[str]  # of matrices
    angle_lkk: Array  # degrees between whole weights
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

    @property
    def closeness_kk(self) -> Array:
        """Angles between whole weights in the median layer, in degrees, so that a new head does not count."""
        if not self.layers:
            return 0 * self.distance_kk
        return median(without_nan(self.angle_lkk), 0)

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
        high rate, those that went less far all lie in the direction of the start.
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
        return out > OUTSIDE and far < NO_FARTHER and angle > TURNED and float(angle_k[one]) > TURNED_ANGLE

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


class BaseAmongThem(NamedTuple):
    """Whether a base that lies among or beside the ingredients is one of them: its score, and how long its rows are."""

    score: Score | None
    rows_beyond: float | None  # the share that are longer or shorter than those of all ingredients


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that was found. What could not be examined is None."""

    checkpoints: Sequence[Checkpoint]
    differences: Sequence[CheckpointDifference] = ()
    not_finite: Sequence[tuple[Checkpoint, str, float]] = ()  # tensor and first such value
    duplicates: Sequence[tuple[Checkpoint, Checkpoint]] = ()
    settings: Sequence[Setting] = ()
    located: Sequence[Checkpoint] = ()  # those that the spread is of: all whose numbers are finite
    spread: WeightDistances | None = None
    barrier: Barrier | None = None
    reordered: Mapping[tuple[int, int], str] = field(default_factory=dict)  # pair -> a layer with rows in other places
    base: BaseAmongThem | None = None  # of a base that lies as one more ingredient would
    ranges: Sequence[str] = ()  # tensors of quantisation-aware training that are not the same in all

    @property
    def adapters(self) -> bool:
        """Whether all ingredients are adapters, which have no new layers."""
        return bool(self.located) and all(one.is_adapter for one in self.located)

    def name(self, ingredient: int) -> str:
        """Return the path of one of the ingredients that were measured."""
        return str(self.located[ingredient].path)


def better_by(one: Score, other: Score) -> PairedDifference:
    """Return how much better the first score is in the selecting metric; positive if it is better."""
    found = difference(one, other, one.selecting)
    if one.higher_is_better:
        return found
    low, high = found.low, found.high
    return PairedDifference(-found.value, None if high is None else -high, None if low is None else -low, found.p)


def surely_better(one: Score, other: Score) -> bool:
    """Whether the first score is surely better, by interval and test, or without them by two standard errors."""
    found = better_by(one, other)
    if found.low is not None:
        return found.surely_above_0
    errors = [score.metrics[score.selecting].stderr for score in (one, other)]
    return found.value > 2 * math.hypot(*(error or 0.0 for error in errors))


def by_loss(score: Score) -> Score:
    """Return the score with the loss as selecting metric, if it has one. A loss says more of each example."""
    return score._replace(selecting=LOSS, higher_is_better=False) if LOSS in score.metrics else score


def groups_of(names: Sequence[str], checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return tensors by layer, with matrices separate from biases and norms."""
    groups: dict[str, list[str]] = {}
    for layer, members in layers_by_name(names).items():
        for name in members:
            shape = checkpoint.tensors[name].shape
            matrix = sum(size > 1 for size in shape) > 1
            groups.setdefault(layer if matrix else layer + BESIDES, []).append(name)
    return groups


def spread_of(own: Geometry, with_base: Geometry | None) -> WeightDistances:
    """Return distances and angles. `own` is the geometry of tensors that the base lacks, `with_base` of the others."""
    parts = [(own, 0)] if own.layers else []
    parts += [(with_base, 1)] if with_base is not None and with_base.layers else []
    xp = library_of(own.gram_lkk)
    centred_lkk = xp.concatenate([_centred(geometry.gram_lkk[:, at:, at:]) for geometry, at in parts])
    whole_lkk = xp.concatenate([geometry.whole()[:, at:, at:] for geometry, at in parts])
    layers = [layer for geometry, _ in parts for layer in geometry.layers]
    matrices = _matrices(layers)
    if with_base is not None and with_base.layers:
        about_lkk = with_base.about(0)
        moved_lk = lengths(about_lkk)[_matrices(with_base.layers)]
        from_base_k, offset_kk = lengths(about_lkk.sum(0)), angles(about_lkk.sum(0))
        base_angle_lk = angles(with_base.whole())[:, 0, 1:][_matrices(with_base.layers)]
        base_angle_k = median(without_nan(base_angle_lk), 0) if len(base_angle_lk) else None
    else:
        moved_lk, from_base_k, offset_kk = _median_to_others(centred_lkk[matrices]), None, None
        base_angle_k = None
    return WeightDistances(
        [layers[place] for place in matrices],
        _stacked([angles(gram_kk) for gram_kk in whole_lkk[matrices]], whole_lkk[:0]),
        angles(whole_lkk[matrices].sum(0)),
        distances(centred_lkk.sum(0)),
        lengths(centred_lkk.sum(0)),
        lengths(whole_lkk[matrices].sum(0)),
        lengths(whole_lkk[matrices]),
        moved_lk,
        from_base_k,
        offset_kk,
        base_angle_k,
        _scatter(layers, centred_lkk, whole_lkk),
    )


def _matrices(layers: Sequence[str]) -> list[int]:
    return [place for place, layer in enumerate(layers) if not layer.endswith(BESIDES)]


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


def _centred(gram_lkk: Array) -> Array:
    """Return inner products of offsets from the mean of these points, given those of offsets from any point."""
    row_lk = gram_lkk.mean(axis=2)
    return gram_lkk - row_lk[:, :, None] - row_lk[:, None, :] + row_lk.mean(axis=1)[:, None, None]


def _medians_of_others(of_kk: Array) -> Array:
    """Return the median of each row without its own column."""
    xp, count = library_of(of_kk), len(of_kk)
    other_kk = beside_diagonal(xp.ones(of_kk.shape), 0.0) > 0
    return median(of_kk[other_kk].reshape(count, count - 1), 1)


def _median_to_others(centred_lkk: Array) -> Array:
    if centred_lkk.shape[1] < 2:
        return 0 * diagonal(centred_lkk)
    return _stacked([_medians_of_others(distances(gram_kk)) for gram_kk in centred_lkk], centred_lkk[:, 0])


def _stacked(each_l: Sequence[Array], none: Array) -> Array:
    """Stack what was worked out layer by layer, so that all else takes the memory of one layer."""
    return library_of(none).stack(list(each_l)) if each_l else none


def _scatter(layers: Sequence[str], centred_lkk: Array, whole_lkk: Array) -> dict[str, float]:
    xp = library_of(centred_lkk)
    spread_l = xp.sqrt(diagonal(centred_lkk).mean(axis=1).clip(min=0))
    length_l = xp.sqrt(whole_lkk.mean(axis=(1, 2)).clip(min=0))
    with quiet(xp):
        ratio_l = without_nan(spread_l / length_l)
    found: Mapping[str, float] = dict(zip(layers, ratio_l.tolist(), strict=True))
    return dict(sorted(found.items(), key=lambda item: -item[1]))
