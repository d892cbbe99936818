"""Heads whose rows lie in another order, told by their weights alone: for runs beside which nothing names the classes.

moved_rows(checkpoints, selection)                       # "runs/b: rows of 'fc.weight' are like those of ..."
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import read_into
from soupcli.checkpoints.compare.class_orders import class_orders
from soupcli.checkpoints.compare.heads import HEAD
from soupcli.mixing.arithmetic.arrays import Array, bytes_of, cast, cpu_library, library_of, quiet
from soupcli.mixing.arithmetic.rounding import HELD_AS, widen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.tensor_filter import TensorFilter

MOST_ROWS = 2000
MOST_HEADS = 8  # as large as each other, such as those of MAE's kin and of distillation
LARGEST = 1 << 23  # elements of a head that is looked at
PIECE = 1 << 18  # elements that are worked on at once
ALIKE = 0.9  # cosine of rows that are copies, with noise
SURE = 6.0  # standard deviations by which other rows are more alike than those of the same number
APART = 0.1  # cosine by which the most alike of such rows is before the next
DIRECTIONS = 4  # that rows need to be told apart
FEW = 5  # classes: fewer rows do not show in how many directions they lie
KEPT = 0.8  # length of the mean of rows, of that at random: training leaves the mean as it was, and rows move away
SHOWN = 6  # rows in a message


class Rows(NamedTuple):
    """The rows of a head without their mean, each of length 1. Unrelated ones have cosines of 1 / sqrt(directions)."""

    rows_cd: Array  # [classes, features]
    directions: float  # at most as many as features: features have few that matter, and rows lie in these
    keeps_start: bool  # whether rows are mostly as they were made at random, in all directions


def moved_rows(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning for the first checkpoint whose head's rows are like the first one's in another order."""
    first, *others = checkpoints
    names = _heads(first, selection) if others and not first.is_adapter else []
    with quiet(cpu_library()):  # constants of a network, such as masks, may hold infinities
        found = (_moved(first, others, name) for name in names)
        return next((text for text in found if text is not None), None)


def _moved(first: Checkpoint, others: Sequence[Checkpoint], name: str) -> str | None:
    rows, stated = _rows(first, name), class_orders(first)
    for other in others:
        spec = other.tensors.get(name)
        if spec is None or spec.shape != first.tensors[name].shape or (stated and class_orders(other) == stated):
            continue
        order = _order(rows, _rows(other, name))
        if order is not None:
            listed = ", ".join(map(str, order[:SHOWN])) + (", ..." if len(order) > SHOWN else "")
            return (
                f"{other.path}: rows of {name!r} are like those of {first.path} in another order, {listed}: if these "
                "are other classes, the mean of the rows is of none; a list of classes beside each run settles it"
            )
    return None


def _heads(checkpoint: Checkpoint, selection: TensorFilter) -> list[str]:
    """Return the heads' matrices: of those that are named so, else the only one, with the fewest rows."""
    found = {
        name: spec.shape[0]
        for name, spec in checkpoint.tensors.items()
        if len(spec.shape) == 2
        and 1 < spec.shape[0] <= MOST_ROWS
        and spec.shape[1] > 1
        and spec.numel <= LARGEST
        and spec.dtype.is_floating_point
        and selection.mixes(name)
    }
    named = {name: rows for name, rows in found.items() if HEAD.search(name)}
    fewest = [name for name, rows in (named or found).items() if rows == min((named or found).values())]
    return fewest if len(fewest) <= (MOST_HEADS if named else 1) else []


def _rows(checkpoint: Checkpoint, name: str) -> Rows:
    """Read a head piece by piece, so that no more than one copy of it is held, in float32."""
    spec, xp = checkpoint.tensors[name], cpu_library()
    classes, features = spec.shape
    head_cd = xp.empty(spec.shape, dtype=xp.float32)
    for start in range(0, classes, at_once := max(1, PIECE // features)):
        shape = min(at_once, classes - start), features
        stored, wide = xp.empty(shape, dtype=getattr(xp, HELD_AS[spec.dtype])), xp.empty(shape, dtype=xp.float64)
        read_into(checkpoint, name, start * features, bytes_of(stored))
        widen(stored, spec.dtype, out=wide)
        head_cd[start : start + len(wide)] = wide
    return rows_of(head_cd)


def rows_of(rows_cd: Array) -> Rows:
    """Return the rows of a head, in its memory.

    Rows without their mean have cosines of -1 / (classes - 1), and others by chance.
    """
    classes, features = rows_cd.shape
    xp = library_of(rows_cd)
    mean_d = rows_cd.mean(axis=0, dtype=xp.float64)
    lengths_c = xp.empty(classes, dtype=xp.float32)
    for start in range(0, classes, at_once := max(1, PIECE // features)):
        piece = rows_cd[start : start + at_once]
        piece -= cast(mean_d, "float32")
        lengths_c[start : start + at_once] = xp.sqrt((piece * piece).sum(axis=1))
    keeps_start = math.sqrt(float(mean_d @ mean_d) * (classes - 1)) >= KEPT * float(lengths_c.mean())
    rows_cd /= lengths_c.clip(min=1e-30).reshape(-1, 1)
    cosines_cc, each_c = rows_cd @ rows_cd.T, xp.arange(classes)
    cosines_cc[each_c, each_c] = 0.0
    by_chance = float((cosines_cc * cosines_cc).sum()) / (classes * (classes - 1)) - 1 / (classes - 1) ** 2
    return Rows(rows_cd, 1 / max(by_chance, 1 / features), keeps_start)


def _order(one: Rows, other: Rows) -> list[int] | None:
    """Return the rows of the other that are most like rows 0, 1, ... if that is another order, and not by chance.

    The largest cosine of unrelated rows is about sqrt(2 ln classes) of their standard deviations, and a mean over rows
    varies less. Copies of two rows cannot be told from heads that learned the opposite of little: of 600 simulated
    pairs of binary heads that learned little from zero, 31 in the same order have a cosine below -0.8, 60 in another.
    """
    cosines_cc = one.rows_cd @ other.rows_cd.T
    classes = len(cosines_cc)
    places_c, order_c = library_of(cosines_cc).arange(classes), cosines_cc.argmax(axis=1)
    same_c, order = cosines_cc[places_c, places_c], order_c.tolist()
    if len(set(order)) < classes or order == places_c.tolist():
        return None
    best_c = cosines_cc[places_c, order_c]
    cosines_cc[places_c, order_c] = -math.inf
    following_c = library_of(cosines_cc).amax(cosines_cc, axis=1)
    moved_c = order_c != places_c
    gain = float((best_c - same_c)[moved_c].mean())
    directions = min(one.directions, other.directions)
    chance = (math.sqrt(2 * math.log(classes)) + SURE / math.sqrt(int(moved_c.sum()) / 2)) / math.sqrt(directions)
    told = gain > chance and (classes >= FEW or (one.keeps_start and other.keeps_start))
    apart = float((best_c - following_c).min()) > APART and directions > DIRECTIONS
    copies = classes > 2 and apart and float(best_c.min()) > ALIKE and gain > 1 - ALIKE
    return order if copies or told else None
