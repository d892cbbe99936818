"""Heads whose rows lie in another order, told by their weights alone: for runs beside which nothing names the classes.

moved_rows(checkpoints, selection)                       # "runs/b: rows of 'fc.weight' are like those of ..."
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import read_part
from soupcli.checkpoints.compare.class_orders import class_orders
from soupcli.late import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.tensor_filter import TensorFilter

HEAD = re.compile(r"head|classif|logit|score|predict|(^|\.)(fc|cls)\d*\.")  # in names of the last layer
MOST_ROWS = 2000
LARGEST = 1 << 23  # elements of a head that is looked at
ALIKE = 0.9  # cosine of rows that are copies, with noise
SURE = 6.0  # standard deviations by which other rows are more alike than those of the same number
SHOWN = 6  # rows in a message


def moved_rows(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning for the first checkpoint whose head's rows are like the first one's in another order."""
    first, *others = checkpoints
    name = _head(first, selection) if others and not first.is_adapter else None
    if name is None:
        return None
    rows_cd, stated = _rows(first, name), bool(class_orders(first))
    for other in others:
        spec = other.tensors.get(name)
        if spec is None or spec.shape != first.tensors[name].shape or (stated and class_orders(other)):
            continue
        order = _order(rows_cd, _rows(other, name))
        if order is not None:
            listed = ", ".join(map(str, order[:SHOWN])) + (", ..." if len(order) > SHOWN else "")
            return (
                f"{other.path}: rows of {name!r} are like those of {first.path} in another order, {listed}: if these "
                "are other classes, the mean of the rows is of none; a list of classes beside each run settles it"
            )
    return None


def _head(checkpoint: Checkpoint, selection: TensorFilter) -> str | None:
    """Return the head's matrix: of those that are named so, else of all, the one with the fewest rows."""
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
    named = {name: rows for name, rows in found.items() if HEAD.search(name)} or found
    fewest = [name for name, rows in named.items() if rows == min(named.values())]
    return fewest[0] if len(fewest) == 1 else None


def _rows(checkpoint: Checkpoint, name: str) -> Tensor:
    """Return the rows of a head without what all share, each of length 1. [classes, features]"""
    spec = checkpoint.tensors[name]
    rows_cd = read_part(checkpoint, name, 0, spec.numel).double().view(spec.shape)
    rows_cd = rows_cd - rows_cd.mean(0)
    lengths_c: Tensor = rows_cd.norm(dim=1, keepdim=True)
    return rows_cd / lengths_c.clamp_min(1e-30)


def _order(one_cd: Tensor, other_cd: Tensor) -> list[int] | None:
    """Return the rows of the other that are most like rows 0, 1, ... if that is another order, and not by chance.

    The cosine of unrelated rows has a standard deviation of 1 / sqrt(features). The largest of `classes` ones is about
    sqrt(2 ln classes) of them, and a mean over rows varies less.
    """
    classes, features = one_cd.shape
    cosine_cc = one_cd @ other_cd.T
    best_c, order_c = cosine_cc.max(1)
    moved_c = order_c != torch.arange(classes)
    if order_c.unique().numel() < classes or not moved_c.any():
        return None
    gain = float((best_c - cosine_cc.diagonal())[moved_c].mean())
    chance = (math.sqrt(2 * math.log(classes)) + SURE / math.sqrt(int(moved_c.sum()) / 2)) / math.sqrt(features)
    copies = classes > 2 and float(best_c.min()) > ALIKE and gain > 1 - ALIKE
    return order_c.tolist() if copies or gain > chance else None
