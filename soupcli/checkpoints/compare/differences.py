"""Compare the headers of several checkpoints: every difference, even if they cannot be mixed.

differences = survey(checkpoints, selection)             # every one, each with what most of the others have
names = shared_names(checkpoints, selection)             # floating tensors of one shape in all
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec, read_bits, remembered
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.numbers import read_numbers
from soupcli.mixing.arithmetic.rounding import round_once, wide
from soupcli.wording import nearest

if TYPE_CHECKING:
    from soupcli.checkpoints.tensor_filter import TensorFilter

Kind = Literal["lacks", "has alone", "shape", "dtype", "key", "tied", "format"]
# Differences that keep checkpoints from being mixed.
FATAL: tuple[Kind, ...] = ("lacks", "has alone", "shape", "key", "format")
NEAR = 400  # names among which the nearest is looked for
MOST_LISTED = 1_000  # names that one checkpoint lacks, or has alone: the rest is counted
MOST_NEAREST = 10  # absent names whose nearest is looked for: those of another network say nothing
DEEPEST = 30  # parts of a name that are looked at
CHUNK = 1 << 18
FEW = 16  # elements of a vector that says nothing
SAMPLE = 1 << 10  # elements that are compared before whole tensors are


class CheckpointDifference(NamedTuple):
    """A difference of one checkpoint from most of the others."""

    checkpoint: Checkpoint
    kind: Kind
    tensor: str | None
    found: str  # e.g. [12, 64]
    expected: str  # what most of them have
    tensors: int = 1  # of such tensors; those above MOST_LISTED are one difference without a name

    def __str__(self) -> str:
        """One line without the checkpoint's path."""
        if self.tensors > 1:
            return f"{'has no' if self.kind == 'lacks' else 'has alone'} {self.tensors:,} more tensors"
        if self.kind == "lacks":
            return f"has no tensor {self.tensor!r}" + (f", its nearest is {self.found!r}" if self.found else "")
        if self.kind == "has alone":
            return f"has tensor {self.tensor!r}, most have not"
        if self.kind in ("key", "format"):
            return f"its weights are taken from {self.found}, those of most from {self.expected}"
        if self.kind == "tied":
            return f"tied weights: {self.found}; in most: {self.expected}"
        return f"tensor {self.tensor!r} has {self.kind} {self.found}, most have {self.expected}"


def survey(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[CheckpointDifference]:
    """Return every difference in keys, names, shapes and dtypes, by checkpoint, for two or more checkpoints."""
    found = [
        *_odd_ones(checkpoints, "format", lambda one: "an adapter" if one.is_adapter else "a whole network"),
        *_odd_ones(checkpoints, "key", _taken_from),
    ]
    names = dict.fromkeys(name for one in checkpoints for name in one.tensors if selection.mixes(name))
    alone: dict[Checkpoint, list[str]] = {one: [] for one in checkpoints}
    absent: dict[Checkpoint, list[str]] = {one: [] for one in checkpoints}
    for name in names:
        holders = [one for one in checkpoints if name in one.tensors]
        others = [one for one in checkpoints if name not in one.tensors] if len(holders) < len(checkpoints) else []
        usual = len(holders) * 2 >= len(checkpoints)
        for one in others if usual else holders:
            (absent if usual else alone)[one].append(name)
        if _all_alike(holders, name):
            continue
        if not name.endswith("_extra_state"):  # a layer's own record, of any length
            found += _odd_ones(holders, "shape", partial(_shape_of, name), name)
        found += _odd_ones(holders, "dtype", partial(_dtype_of, name), name)
    nearest_left = MOST_NEAREST
    for one in checkpoints:
        found += _of_names(one, "lacks", absent[one], nearest_left)
        found += _of_names(one, "has alone", alone[one])
        nearest_left = max(0, nearest_left - len(absent[one]))
    place = {one: number for number, one in enumerate(checkpoints)}
    return sorted(found, key=lambda difference: place[difference.checkpoint])


def _of_names(
    checkpoint: Checkpoint, kind: Kind, names: Sequence[str], nearest_of: int = 0
) -> Iterator[CheckpointDifference]:
    """Yield the tensors that only this checkpoint lacks or has, and the number of those past MOST_LISTED.

    The first `nearest_of` come with the name that is nearest.
    """
    for number, name in enumerate(names[:MOST_LISTED]):
        near = _nearest(name, checkpoint) if number < nearest_of else ""
        yield CheckpointDifference(checkpoint, kind, name, near, "")
    if len(names) > MOST_LISTED:
        yield CheckpointDifference(checkpoint, kind, None, "", "", len(names) - MOST_LISTED)


def _all_alike(holders: Sequence[Checkpoint], name: str) -> bool:
    """Whether a tensor has one shape and dtype in all that have it."""
    expected = holders[0].tensors[name]
    return all(one.tensors[name] == expected for one in holders[1:])


def shared_names(checkpoints: Iterable[Checkpoint], selection: TensorFilter) -> list[str]:
    """Return names of real floating tensors with one shape in all checkpoints, in the order of the first."""
    first, *others = checkpoints
    return [
        name
        for name, spec in first.tensors.items()
        if selection.mixes(name)
        and _is_real(spec)
        and all(
            name in one.tensors and one.tensors[name].shape == spec.shape and _is_real(one.tensors[name])
            for one in others
        )
    ]


def same_weights(
    one: Checkpoint, other: Checkpoint, *, may_differ: Callable[[str], bool] = lambda _name: False
) -> bool:
    """Whether two checkpoints hold the same tensors, bit for bit or one as a rounded copy, whatever their files.

    A copy that was saved in a narrower dtype, and perhaps widened again, has the other's numbers rounded. Integers
    whose names `may_differ`, such as counters, are ignored.
    """
    shapes = [{name: spec.shape for name, spec in each.tensors.items()} for each in (one, other)]
    if shapes[0] != shapes[1]:
        return False
    names = [name for name, spec in one.tensors.items() if spec.dtype.is_averaged or not may_differ(name)]
    if one.tensors == other.tensors and all(
        _same_tensor((one, name), (other, name), one.tensors[name]) for name in names
    ):
        return True
    return any(_is_rounded(*pair, dtype, names) for dtype in NARROW for pair in ((one, other), (other, one)))


NARROW = (Dtype.FLOAT16, Dtype.BFLOAT16, Dtype.FLOAT32)


def _is_rounded(one: Checkpoint, copy: Checkpoint, dtype: Dtype, names: Sequence[str]) -> bool:
    """Whether the copy's floating numbers are the other's, rounded to the dtype, and all else is equal."""
    for name in names:
        spec, of_copy = one.tensors[name], copy.tensors[name]
        if not (spec.dtype.is_floating_point and of_copy.dtype.is_floating_point):
            if spec != of_copy or not _same_tensor((one, name), (copy, name), spec):
                return False
            continue
        for start in range(0, spec.numel, CHUNK):
            count = min(CHUNK, spec.numel - start)
            values, copied = (read_numbers(each, name, start, count) for each in (one, copy))
            for step in (Dtype.FLOAT32, dtype):  # as torch rounds float64 numbers to 16 bits
                values = wide(round_once(values, step), step)
            if not bool((values == copied).all()):
                return False
    return True


def differing_ranges(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return names of ranges, scales and zero points of quantisation-aware training that differ."""
    first, *others = checkpoints
    return [
        name
        for name, spec in first.tensors.items()
        if RANGES.search(name)
        and all(one.tensors.get(name) == spec for one in others)
        and not all(_same_tensor((first, name), (one, name), spec) for one in others)
    ]


RANGES = re.compile(r"(^|[._])(fake_quant|activation_post_process|weight_fake_quant|observer|zero_point)([._]|$)")


def differing_integers(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return names of integer and boolean tensors that all checkpoints have and that differ."""
    first, *others = checkpoints
    names = [
        name
        for name, spec in first.tensors.items()
        if not spec.dtype.is_averaged and all(one.tensors.get(name) == spec for one in others)
    ]
    return [n for n in names if not all(_same_tensor((first, n), (one, n), first.tensors[n]) for one in others)]


def same_in_all(checkpoints: Sequence[Checkpoint], name: str) -> bool:
    """Whether all checkpoints have tensor `name` with the same shape, dtype and bits."""
    first, *others = checkpoints
    spec = first.tensors.get(name)
    return spec is not None and all(
        one.tensors.get(name) == spec and _same_tensor((first, name), (one, name), spec) for one in others
    )


def differing_ties(checkpoints: Sequence[Checkpoint], ties: Mapping[Checkpoint, str]) -> list[CheckpointDifference]:
    """Return the checkpoints whose ties differ from most others'. `ties` describes each one's."""
    return _odd_ones(checkpoints, "tied", ties.__getitem__)


def tied(checkpoint: Checkpoint) -> list[tuple[str, ...]]:
    """Return groups of names of tied weights, which share bytes in the file or store the same numbers twice.

    A head's bias is tied as well as its matrix. Vectors of a few elements may be alike by chance.
    """
    if not checkpoint.places:
        return []
    groups: dict[Hashable, list[str]] = {}
    for name, spec in checkpoint.tensors.items():
        if not spec.numel or not spec.dtype.is_averaged or (len(spec.shape) < 2 and spec.numel <= FEW):
            continue
        values = bytes(read_bits(checkpoint, name, 0, min(SAMPLE, spec.numel)))
        if values != values[: spec.dtype.itemsize] * min(SAMPLE, spec.numel):  # all zeros or ones are nothing to share
            groups.setdefault((spec, values), []).append(name)
    return [group for names in groups.values() for group in _same_in_full(checkpoint, names)]


def _same_in_full(checkpoint: Checkpoint, names: Sequence[str]) -> list[tuple[str, ...]]:
    first, spec = names[0], checkpoint.tensors[names[0]]
    same = [first, *(name for name in names[1:] if _same_tensor((checkpoint, first), (checkpoint, name), spec))]
    return [tuple(same)] if len(same) > 1 else []


def _same_tensor(one: tuple[Checkpoint, str], other: tuple[Checkpoint, str], spec: TensorSpec) -> bool:
    parts = ((start, min(CHUNK, spec.numel - start)) for start in range(0, spec.numel, CHUNK))
    return all(read_bits(*one, *part) == read_bits(*other, *part) for part in parts)


def _odd_ones(
    checkpoints: Sequence[Checkpoint], kind: Kind, value_of: Callable[[Checkpoint], str], tensor: str | None = None
) -> list[CheckpointDifference]:
    """Return the checkpoints whose value differs from most others'; in a tie from the first one's."""
    values = [value_of(one) for one in checkpoints]
    usual = Counter(values).most_common(1)[0][0] if values else ""
    return [
        CheckpointDifference(one, kind, tensor, value, usual)
        for one, value in zip(checkpoints, values, strict=True)
        if value != usual
    ]


def _nearest(name: str, checkpoint: Checkpoint) -> str:
    """Return the name that differs only by a prefix, else the one with the most similar spelling."""
    by_leaf, by_ending = _endings(checkpoint)
    shorter = (ending for ending in _endings_of(name) if ending in checkpoint.tensors)
    leaf = name.rpartition(".")[2]
    return by_ending.get(name, "") or next(shorter, "") or nearest(name, by_leaf.get(leaf, [])[:NEAR]) or ""


@remembered(2)
def _endings(checkpoint: Checkpoint) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Names by their last part, and the first name that ends in `.ending`, by the ending."""
    by_leaf: dict[str, list[str]] = {}
    by_ending: dict[str, str] = {}
    for name in checkpoint.tensors:
        by_leaf.setdefault(name.rpartition(".")[2], []).append(name)
        for ending in _endings_of(name):
            by_ending.setdefault(ending, name)
    return by_leaf, by_ending


def _endings_of(name: str) -> list[str]:
    """`b.c` and `c` of `a.b.c`; at most DEEPEST of them."""
    parts = name.split(".", DEEPEST)
    return [name.split(".", number)[-1] for number in range(1, len(parts))]


def _taken_from(checkpoint: Checkpoint) -> str:
    origin = checkpoint.origin
    if origin.averaged:
        return "averages over the training"
    return repr(origin.key) if origin.key else "the file itself"


def _is_real(spec: TensorSpec) -> bool:
    return spec.dtype.is_floating_point


def _shape_of(name: str, checkpoint: Checkpoint) -> str:
    return str(list(checkpoint.tensors[name].shape))


def _dtype_of(name: str, checkpoint: Checkpoint) -> str:
    return checkpoint.tensors[name].dtype.value
