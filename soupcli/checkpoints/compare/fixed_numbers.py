"""Numbers that a network computes with and does not train: sums over examples, anchors, schedules, filters, indices.

different_sums(checkpoints, selection)                   # "'norm.m2' is a sum over 'norm.count' examples, ..."
different_tables(checkpoints, selection)                 # "'model.24.anchors' differs: ..."
few_whole_numbers(checkpoints, selection)                # "'image_size' holds whole numbers ..."

Weights are trained for the numbers of their own network, and fit no mean of several.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import read_bits
from soupcli.checkpoints.compare.codes import COUNTS
from soupcli.checkpoints.compare.integers import FEW, is_known
from soupcli.checkpoints.compare.weight_parts import joined, modules_of
from soupcli.checkpoints.numbers import GLANCE, first_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.compare.weight_parts import Module
    from soupcli.checkpoints.tensor_filter import TensorFilter

SAME = 0.01  # relative distance of numbers whose mean will do: a dtype of 16 bits rounds by less
LEAST = 8  # numbers in order, which trained ones are not by chance
# What follows `_` in a name, or is the whole of it.
COUNT = re.compile(r"(.*?)_?(count|counter|total|n|num|((n|num|total)_?)?(samples|examples|seen|obs|observations))")
SUM = re.compile(r"(.*?)_?(m2|ssd|sums?(_?sq\w*|_\w*)?|sq_?sums?|squares)", re.IGNORECASE)
OF_WELFORD = re.compile(r"(.*?)_?S")  # beside a mean
TABLES = re.compile(
    r"anchors?|(cell|base)_anchors|anchor_(grid|boxes|wh|sizes)|priors|prior_boxes|default_boxes|d?boxes(_\w+)?"
    r"|mean_sizes?(_arr)?|inv_freq|mel_(fb|basis|filters|weights)|fb|f?banks?|filter_?banks?|dct_mat|window"
    r"|(sqrt_)?(one_minus_)?alphas_cumprod(_prev)?|posterior_\w+|action_(scale|bias)"
)
# Those whose names stand for trained numbers too, unless they are in order.
IN_ORDER = re.compile(
    r"betas|alphas|sigmas|(z_)?support|(z_)?atoms|taus|grid|knots|bins|bin_(edges|centers)|edges|boundaries|buckets"
    r"|levels|offsets?|freqs|freq_bands"
)


def different_sums(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning that sums over examples are averaged, and their integer count is taken from one, or None."""
    for module, leaves in modules_of(checkpoints[0].tensors).items():
        for start, leaf, count in _sums(leaves):
            name, count = joined(module, leaf), joined(module, count)
            values = _counts(checkpoints, count) if selection.mixes(name) else []
            if values and min(values) < max(values) * (1 - SAME):
                said = " | ".join(map(str, dict.fromkeys(values)))
                pattern = joined(module, f"{start}*") if module or start else name
                return (
                    f"{name!r} is a sum over examples, of which there are not as many in all ({count}: {said}): the "
                    f"soup has the mean of the sums, and the count of one; --take '{pattern}' takes both from the best "
                    "ingredient"
                )
    return None


def _sums(leaves: Module) -> Iterator[tuple[str, str, str]]:
    """Yield the sums of a module with their integer counts, after what the names of both begin with."""
    whole = [leaf for leaf, spec in leaves.items() if spec.numel == 1 and not spec.dtype.is_averaged]
    counts = {found[1]: leaf for leaf in whole if (found := COUNT.fullmatch(leaf)) is not None}
    has_mean = any(leaf.endswith("mean") for leaf in leaves)
    for leaf, spec in leaves.items() if counts else ():
        found = SUM.fullmatch(leaf) or (OF_WELFORD.fullmatch(leaf) if has_mean else None)
        if found is not None and found[1] in counts and spec.dtype.is_floating_point:
            yield found[1], leaf, counts[found[1]]


def _counts(checkpoints: Sequence[Checkpoint], name: str) -> list[int]:
    """Return the number in an integer tensor of one element for each checkpoint; nothing if it is another in some."""
    spec = checkpoints[0].tensors[name]
    if any(one.tensors.get(name) != spec for one in checkpoints):
        return []
    return [int.from_bytes(read_bits(one, name, 0, 1), "little", signed=True) for one in checkpoints]


def different_tables(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning that numbers which are computed before the training differ, and are averaged, or None."""
    found = [
        name
        for name in _floating(checkpoints, selection)
        if _is_table(checkpoints, name) and _apart([first_numbers(one, name, LARGEST) for one in checkpoints])
    ]
    if not found:
        return None
    return (
        f"{shown(found)} differs: anchors, schedules, filters and the like are computed, not trained, and weights fit "
        "those of their own network; the soup has the mean: train all with the same"
    )


LARGEST = 1 << 12  # numbers of a table that are looked at


def _is_table(checkpoints: Sequence[Checkpoint], name: str) -> bool:
    leaf = name.rpartition(".")[2].lstrip("_")
    if TABLES.fullmatch(leaf) or TABLES.fullmatch(_without_place(name)):
        return True
    if IN_ORDER.fullmatch(leaf) is None or checkpoints[0].tensors[name].shape[-1:] < (LEAST,):
        return False
    length = checkpoints[0].tensors[name].shape[-1]
    return all(_is_in_order(first_numbers(one, name, min(length, GLANCE))) for one in checkpoints)


def _without_place(name: str) -> str:
    """Return the last part of a name that is no number: `cell_anchors` of `anchor_generator.cell_anchors.0`."""
    parts = name.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1].isdecimal() else ""


def _is_in_order(numbers: Sequence[float]) -> bool:
    pairs = list(pairwise(numbers))
    return all(one < other for one, other in pairs) or all(one > other for one, other in pairs)


def _apart(numbers: Sequence[Sequence[float]]) -> bool:
    """Whether some are not those of the first, but for rounding."""
    least = SAME * max(map(abs, numbers[0]), default=0)
    pairs = (pair for others in numbers[1:] for pair in zip(numbers[0], others, strict=True))
    return any(abs(one - other) > least for one, other in pairs)


def few_whole_numbers(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning that a few floating numbers are whole in all, and are averaged, or None.

    Training leaves none whole. They may be sizes, codes, indices or counts, of which only counts have a mean.
    """
    found = []
    for name in _floating(checkpoints, selection):
        spec = checkpoints[0].tensors[name]
        if not 1 < spec.numel <= FEW or is_known(name) or COUNTS.search(name):
            continue
        numbers = _whole(checkpoints, name)
        if len(set(numbers)) > 1 and any(len(set(each)) > 1 for each in numbers):
            found.append(name)
    if not found:
        return None
    return (
        f"{shown(found)} holds whole numbers in all, and not the same: their mean is right of counts alone, not of "
        f"sizes, indices or codes; --take '{found[0]}' takes the best one's"
    )


def _whole(checkpoints: Sequence[Checkpoint], name: str) -> list[tuple[float, ...]]:
    """Return all numbers of a tensor for each checkpoint; nothing if some are not whole."""
    numbers = []
    for one in checkpoints:
        own = tuple(first_numbers(one, name, FEW))
        if not all(number.is_integer() for number in own):
            return []
        numbers.append(own)
    return numbers


def _floating(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> Iterator[str]:
    """Yield the mixed floating tensors that have one shape in all."""
    for name, spec in checkpoints[0].tensors.items():
        if spec.shape and selection.mixes(name) and is_alike(checkpoints, name):
            yield name


def is_alike(checkpoints: Sequence[Checkpoint], name: str) -> bool:
    """Whether all have the tensor as floating numbers of one shape, and no adapter changes it."""
    shape, specs = checkpoints[0].tensors[name].shape, [one.tensors.get(name) for one in checkpoints]
    return name not in checkpoints[0].adapted and all(
        spec is not None and spec.shape == shape and spec.dtype.is_floating_point for spec in specs
    )


def shown(names: Sequence[str]) -> str:
    """Return the first name, and how many more there are."""
    return f"{names[0]!r}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
