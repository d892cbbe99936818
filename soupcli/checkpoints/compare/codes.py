"""Floating tensors that hold codes, not weights, whatever lies beside them: by their own numbers.

for together in coded(checkpoints, selection):
    together.names                                        # a tensor whose mean is wrong

The scales of quantised weights have any name and lie anywhere, so codes are recognised by their own numbers. Training
leaves no floating tensor whole, or of the same few values, in all ingredients and different between them, and no matrix
whose rows have the same largest number. What it does not train is the same in all: identities, grids, positions.
Float8 numbers with scales reach the end of their range, and float8 weights without scales stay far below it.

Most tensors are told by their first numbers. Only tensors that seem to be codes are read as a whole.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.compare.constants import same_numbers
from soupcli.checkpoints.compare.integers import FEW, is_known
from soupcli.checkpoints.compare.weight_parts import Form, Together, form_of_parts, is_called_factor
from soupcli.checkpoints.numbers import GLANCE, first_numbers, parts_of, read_numbers
from soupcli.mixing.arithmetic.arrays import library_of
from soupcli.mixing.arithmetic.float_format import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.tensor_filter import TensorFilter

VALUES = 16  # of a code of 4 bits
LEAST_CODE = 0.5  # the largest magnitude of a code of few values is at least this; steps of an optimizer are smaller
SAMPLE = 1 << 12  # elements of a float8 matrix that show how far its numbers reach
REACH = 1 / 8  # of the range of float8
SHAPES = 8  # of matrices whose rows are looked at
FEWEST_ROWS, FEWEST_COLUMNS = 16, 8  # of such a matrix: fewer agree by chance, as numbers from a range in bfloat16 do
WIDEST = 1 << 16  # columns
MOST_ROWS = 64  # that are looked at, from all of a matrix
BLOCKS = (256, 128, 64, 32, 16)  # elements that share a scale
SAME = 1e-5  # relative distance of largest numbers that are the same
MOST_TIMES = 2  # that a row or block has its largest number, on average: others are rounded to it
SCALES = ("scale", "scales", "amax", "absmax", "factor", "factors", "_s", ".s")  # ends of names of scales
FEWEST_SCALED = 3  # elements of codes with a scale beside them
LARGEST, MOST_LARGEST = 1 << 24, 16  # elements of a scaled matrix, and of those with the largest magnitude
# Counts of a network or its training: any mean of them will do.
COUNTS = re.compile(
    r"(^|[._])(n|num|counts?|counters?|sums?|totals?|usages?|hits|freqs?|frequency|frequencies|confusion|confmat"
    r"|histogram|cluster_size|\w*(tokens|samples|examples)_per_\w+)([._]|$)",
    re.IGNORECASE,
)


TAKE = "--take '{name}' takes the best one's"
MASK = form_of_parts(
    "masked",
    "a mask of zeros and ones",
    f"multiply each weight by its mask, and save the products; if one ingredient's mask will do, {TAKE}",
)
WHOLE_NUMBERS = form_of_parts(
    "whole numbers",
    "made of whole numbers alone, as codes of quantised weights, counts and indices are",
    "of quantised weights save the products of codes and scales, or mix the networks from before quantisation; if "
    f"these are counts or indices, {TAKE}",
)
NORMALISED = form_of_parts(
    "normalised",
    "made of rows that all have the same largest number, as codes of quantised weights are",
    "of quantised weights save the products of codes and scales, or mix the networks from before quantisation; if "
    f"these are no codes, {TAKE}",
)
DIVIDED = form_of_parts(
    "divided",
    "divided by a scale of its own, which lies beside it",
    "multiply the weights by their scales, and save the products; or mix the networks from before quantisation; if it "
    f"is no scale, {TAKE}",
)
FEW_VALUES = form_of_parts(
    "few values",
    "made of a few values alone, as codes of quantised weights are",
    "save the weights that the codes stand for, or mix the networks from before quantisation; if these are no codes, "
    f"{TAKE}",
)
ORDER = form_of_parts(
    "order",
    "an order of channels, classes or the like, in whole numbers",
    f"weights go with their order, and those of two orders have no mean: leave out the one that differs; else {TAKE}",
)
FEWEST_IN_ORDER = 4  # of fewer some are in each order by chance


def coded(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> Iterator[Together]:
    """Yield the mixed floating tensors that hold codes in all checkpoints, and not the same."""
    first, adapted = checkpoints[0], frozenset(checkpoints[0].adapted)
    scaled = {weight for weight, _ in _scaled(first)}
    for name, spec in first.tensors.items():
        few = FEWEST_SCALED if name in scaled else FEW
        if name in adapted or not selection.mixes(name):
            continue
        if FEWEST_IN_ORDER <= spec.numel <= few and _are_orders(checkpoints, name, spec):
            yield Together(ORDER, (name,))
        if not _may_hold_codes(name, spec, few):
            continue
        if not all(_is_alike(one, name, spec) and _seems_coded(one, name) for one in checkpoints):
            continue
        if same_numbers(checkpoints, name):
            continue
        form = _form_of(checkpoints, name)
        if form is not None:
            yield Together(form, (name,))


def _are_orders(checkpoints: Sequence[Checkpoint], name: str, spec: TensorSpec) -> bool:
    """Whether a few floating numbers are those from 0, or from 1, in all checkpoints, each once and in two orders."""
    if not spec.dtype.is_floating_point or not all(_is_alike(one, name, spec) for one in checkpoints):
        return False
    every = [*range(spec.numel)], [*range(1, spec.numel + 1)]
    return all(sorted(first_numbers(one, name, spec.numel)) in every for one in checkpoints) and not same_numbers(
        checkpoints, name
    )


def _may_hold_codes(name: str, spec: TensorSpec, few: int) -> bool:
    """Whether a tensor holds more than a few floating numbers, and no counts."""
    if not spec.dtype.is_floating_point or spec.numel <= (1 if "mask" in name.lower() else few):
        return False
    return not is_known(name) and COUNTS.search(name) is None


def _is_alike(checkpoint: Checkpoint, name: str, spec: TensorSpec) -> bool:
    found = checkpoint.tensors.get(name)
    return found is not None and found.shape == spec.shape and found.dtype.is_floating_point


def _seems_coded(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the first numbers of a tensor are whole, or few values of both signs."""
    numbers = first_numbers(checkpoint, name, GLANCE)
    return all(number.is_integer() for number in numbers) or _may_be_few(numbers)


def _may_be_few(numbers: Sequence[float]) -> bool:
    values = set(numbers)
    return len(numbers) == GLANCE and len(values) <= VALUES and min(values) < 0 < max(values)


class Codes(NamedTuple):
    """What the numbers of a tensor are, if they may be codes."""

    least: float
    most: float
    values: frozenset[float] | None  # None if all numbers are whole


def _form_of(checkpoints: Sequence[Checkpoint], name: str) -> Form | None:
    """Return what the codes of a tensor are, or None if it holds none in some checkpoint."""
    found: list[Codes] = []
    for one in checkpoints:
        codes = _codes_of(one, name)
        if codes is None:
            return None
        found.append(codes)
    least, most = min(one.least for one in found), max(one.most for one in found)
    sets = [one.values for one in found if one.values is not None]
    if sets:
        several = frozenset[float]().union(*sets)
        is_one_set = len(sets) == len(found) and len(several) <= VALUES and len({one[:2] for one in found}) == 1
        return FEW_VALUES if is_one_set and least == -most and LEAST_CODE <= most < math.inf else None
    if all(one.least == one.most for one in found):
        return None  # constants of initialisation
    return MASK if least == 0 and most == 1 else WHOLE_NUMBERS


def _codes_of(checkpoint: Checkpoint, name: str) -> Codes | None:
    """Return what a tensor's numbers are; None if they are neither whole nor few values."""
    spec = checkpoint.tensors[name]
    whole_from = 2.0 ** (FORMATS[spec.dtype].digits - 1)  # all numbers of the dtype from here on are whole
    least, most, others, small = math.inf, -math.inf, 0, 0
    values: set[float] | None = None
    for part in parts_of(checkpoint, name):
        is_whole = bool((part == part.round()).all()) and math.isfinite(float(abs(part).max()))
        if values is None and not is_whole:
            if others:
                return None
            values = set()
        if values is not None:
            values |= set(library_of(part).unique(part).tolist())
            if len(values) > VALUES:
                return None
        least, most = min(least, float(part.min())), max(most, float(part.max()))
        others += int((part != 0).sum())
        small += int(((part != 0) & (abs(part) < whole_from)).sum())
    if values is None and small * 4 < others:
        return None
    return Codes(least, most, frozenset(values) if values is not None else None)


def normalised(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> Iterator[Together]:
    """Yield mixed matrices that differ and were divided by the largest number of each row or block, in all checkpoints.

    The largest numbers are then all the same, and each row or block has one. Rows of clipped weights have any number.
    """
    first = checkpoints[0]
    for name in _one_of_each_shape(first, selection):
        spec = first.tensors[name]
        if not _same_largest(first_numbers(first, name, 2 * _columns(spec)), _columns(spec)):
            continue
        if not all(_is_alike(one, name, spec) for one in checkpoints) or same_numbers(checkpoints, name):
            continue
        largest = [_largest_of_rows(one, name) for one in checkpoints]
        if all(number is not None and math.isclose(number, largest[0] or 0, rel_tol=SAME) for number in largest):
            yield Together(NORMALISED, (name,))


def scaled_by_one(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> Iterator[Together]:
    """Yield the mixed matrices that were divided by their largest number, which lies beside them and differs."""
    first = checkpoints[0]
    for weight, scale in _scaled(first):
        spec = first.tensors[weight]
        is_read = first.tensors[scale].numel == 1 and FEW < spec.numel <= LARGEST and selection.mixes(weight)
        if not is_read or not all(
            _is_alike(one, name, first.tensors[name]) for one in checkpoints for name in (weight, scale)
        ):
            continue
        if same_numbers(checkpoints, scale) or same_numbers(checkpoints, weight):
            continue
        largest = _largest(first, weight)
        if largest > 0 and all(math.isclose(_largest(one, weight), largest, rel_tol=SAME) for one in checkpoints[1:]):
            yield Together(DIVIDED, (weight, scale))


def _scaled(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield matrices with what may be their scales: a tensor of the same module, by its name."""
    scales: dict[str, list[str]] = {}
    for name, spec in checkpoint.tensors.items():
        if spec.dtype.is_floating_point and (name == "s" or name.endswith(SCALES)):
            scales.setdefault(name.rpartition(".")[0], []).append(name)
    for name, spec in checkpoint.tensors.items() if scales else ():
        module, _, leaf = name.rpartition(".")
        for scale in scales.get(module, ()) if spec.dtype.is_floating_point and len(spec.shape) > 1 else ():
            if name != scale and is_called_factor(leaf, scale.rpartition(".")[2]):
                yield name, scale


def _largest(checkpoint: Checkpoint, name: str) -> float:
    """Return the largest magnitude of a tensor; 0 if many numbers have it, as clipped ones do."""
    largest, times = 0.0, 0
    for part in parts_of(checkpoint, name):
        found = float(abs(part).max())
        if found > largest * (1 + SAME):
            largest, times = found, 0
        times += int((abs(part) >= largest * (1 - SAME)).sum())
        if times > MOST_LARGEST:
            return 0
    return largest


def _one_of_each_shape(checkpoint: Checkpoint, selection: TensorFilter) -> list[str]:
    """Return the first mixed matrix of each shape, of the SHAPES largest ones."""
    found: dict[tuple[int, ...], str] = {}
    adapted = frozenset(checkpoint.adapted)
    for name, spec in checkpoint.tensors.items():
        is_matrix = spec.dtype.is_floating_point and len(spec.shape) > 1 and spec.shape[0] >= FEWEST_ROWS
        if is_matrix and FEWEST_COLUMNS <= _columns(spec) <= WIDEST and name not in adapted and selection.mixes(name):
            found.setdefault(spec.shape, name)
    return [found[shape] for shape in sorted(found, key=math.prod, reverse=True)[:SHAPES]]


def _columns(spec: TensorSpec) -> int:
    return math.prod(spec.shape[1:])


def _same_largest(numbers: Sequence[float], columns: int) -> bool:
    """Whether two rows have the same largest magnitude."""
    one, other = (max(map(abs, numbers[at : at + columns])) for at in (0, columns))
    return one > 0 and math.isclose(one, other, rel_tol=SAME)


def _largest_of_rows(checkpoint: Checkpoint, name: str) -> float | None:
    """Return the largest magnitude if each of some rows, or of their blocks, has it about once; else None.

    Rows of zeros but for a few numbers, such as those of an identity, are no codes. Nor are rows that have it in one
    column, as those of Mamba's `A_log` before training: all begin the same.
    """
    spec = checkpoint.tensors[name]
    columns, step = _columns(spec), -(-spec.shape[0] // MOST_ROWS)
    rows = [read_numbers(checkpoint, name, row * columns, columns) for row in range(0, spec.shape[0], step)]
    magnitudes_rc = abs(library_of(rows[0]).stack(rows))
    largest = float(magnitudes_rc.max())
    is_largest_rc = magnitudes_rc >= largest * (1 - SAME)
    if int((magnitudes_rc == 0).sum(axis=1).max()) * 2 > columns:
        return None
    for block in (columns, *BLOCKS):
        if columns % block == 0:
            is_largest_bn = is_largest_rc.reshape(-1, block)
            times_b, in_column_n = is_largest_bn.sum(axis=1), is_largest_bn.sum(axis=0)
            is_once = int(times_b.min()) > 0 and int(times_b.sum()) < MOST_TIMES * len(times_b)
            if is_once and int(in_column_n.max()) * 2 <= len(times_b):
                return largest
    return None


def scaled_float8(checkpoint: Checkpoint, selection: TensorFilter) -> list[str]:
    """Return the mixed float8 matrices if most of them reach far into their range: their scales are elsewhere."""
    names = [name for name, spec in checkpoint.tensors.items() if _is_narrow(spec) and selection.mixes(name)]
    reach: list[float] = []
    for name in names:
        spec = checkpoint.tensors[name]
        numbers = read_numbers(checkpoint, name, 0, min(SAMPLE, spec.numel))
        reach.append(float(abs(numbers).max()) / FORMATS[spec.dtype].largest)
    return names if reach and sorted(reach)[(len(reach) - 1) // 2] >= REACH else []


def _is_narrow(spec: TensorSpec) -> bool:
    return spec.dtype.is_floating_point and spec.dtype.itemsize == 1 and len(spec.shape) > 1 and spec.numel > FEW
