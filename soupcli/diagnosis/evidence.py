"""Evidence from the files: tests of causes that need no scores.

A test returns the evidence it finds, or None if its cause does not apply. Words and remedies are in causes.py.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple

from soupcli.checkpoints.compare.differences import FATAL, CheckpointDifference
from soupcli.checkpoints.compare.shapes import has_other_rows, is_of_inputs
from soupcli.checkpoints.dtype import Dtype
from soupcli.mixing.arithmetic.arrays import library_of, places
from soupcli.networks.layer_names import layers_by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.compare.settings import Setting
    from soupcli.diagnosis.facts import Facts

Sure = Literal["certain", "likely", "possible"]


class Evidence(NamedTuple):
    """The evidence for a cause, in words; the checkpoints that it accuses; and how sure it is.

    `certain`: it was read or measured. `likely`: scores and weights agree, but another cause could explain them too.
    `possible`: known only from weights, or the soup does not suffer.
    """

    text: str
    accused: tuple[Checkpoint, ...] = ()
    sure: Sure = "certain"


def other_networks(facts: Facts) -> Evidence | None:
    fatal = _of_names(facts)
    return _told(fatal) if fatal and not _in_heads(facts, fatal) else None


def other_classes(facts: Facts) -> Evidence | None:
    fatal = _of_names(facts)
    return _told(fatal) if fatal and _in_heads(facts, fatal) else None


def _of_names(facts: Facts) -> list[CheckpointDifference]:
    return [each for each in facts.differences if each.kind in FATAL and each.kind != "key"]


def _in_heads(facts: Facts, fatal: list[CheckpointDifference]) -> bool:
    """Whether only output layers differ: at most two, and not most of the network."""
    if any(each.kind == "format" or each.tensors > 1 for each in fatal) or not any(
        _is_weight(facts, each.tensor) for each in fatal
    ):
        return False
    layers = layers_by_name({name: None for one in facts.checkpoints for name in one.tensors})
    names = {each.tensor for each in fatal}
    if any(name is not None and (is_of_inputs(name) or not _differs_in_rows(facts, name)) for name in names):
        return False
    touched = list(islice((layer for layer, members in layers.items() if not names.isdisjoint(members)), 3))
    return len(touched) <= 2 and 2 * len(touched) <= len(layers)


def _differs_in_rows(facts: Facts, tensor: str) -> bool:
    """Whether a tensor has the same columns in all checkpoints that have it: outputs differ, not inputs."""
    specs = [one.tensors[tensor] for one in facts.checkpoints if tensor in one.tensors]
    return all(spec.shape == specs[0].shape or has_other_rows(specs[0], spec) for spec in specs[1:])


def _is_weight(facts: Facts, tensor: str | None) -> bool:
    """Whether a tensor is averaged, as those of an output layer are."""
    specs = (one.tensors.get(tensor or "") for one in facts.checkpoints)
    return any(spec is not None and spec.dtype.is_averaged for spec in specs)


def _told(differences: list[CheckpointDifference]) -> Evidence:
    first = differences[0]
    count = sum(each.tensors for each in differences)
    more = f", and {count - 1} more differences" if count > 1 else ""
    accused = tuple(dict.fromkeys(each.checkpoint for each in differences))
    return Evidence(f"{first.checkpoint.path}: {first}{more}", accused)


def other_keys(facts: Facts) -> Evidence | None:
    keys = [each for each in facts.differences if each.kind == "key"]
    return _told(keys) if keys else None


def overflow(facts: Facts) -> Evidence | None:
    bad = [each for each in facts.not_finite if _isoverflow(*each)]
    return _told_numbers(bad, "float16 ends at 65504") if bad else None


def diverged(facts: Facts) -> Evidence | None:
    bad = [each for each in facts.not_finite if not _isoverflow(*each)]
    return _told_numbers(bad, "") if bad else None


def _isoverflow(checkpoint: Checkpoint, name: str, value: float) -> bool:
    return checkpoint.tensors[name].dtype == Dtype.FLOAT16 and math.isinf(value)


def _told_numbers(bad: list[tuple[Checkpoint, str, float]], why: str) -> Evidence:
    checkpoint, name, value = bad[0]
    more = f", and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
    text = f"{checkpoint.path}: tensor {name!r} holds {value}{more}" + (f" ({why})" if why else "")
    return Evidence(text, tuple(dict.fromkeys(each for each, _, _ in bad)))


def copies(facts: Facts) -> Evidence | None:
    if not facts.duplicates:
        return None
    one, other = facts.duplicates[0]
    more = f", and {len(facts.duplicates) - 1} more" if len(facts.duplicates) > 1 else ""
    how = "bit for bit" if one.tensors == other.tensors else "in another dtype"
    text = f"{other.path} holds the weights of {one.path}, {how}{more}"
    return Evidence(text, tuple(dict.fromkeys(copy for _, copy in facts.duplicates)))


NO_LENGTH = 1e-5  # of the longest ingredient's: what rounding leaves of 0


def zeros(facts: Facts) -> Evidence | None:
    """Find ingredients of whose matrices half or more are all zeros while the others' are not.

    An untrained adapter is zeros; a layer that began at zero may still be zero in an early checkpoint.
    """
    if facts.spread is None or len(facts.located) < 2 or not facts.spread.layers or facts.adapters:
        return None
    length_lk = facts.spread.length_lk
    odd_lk = length_lk < NO_LENGTH * library_of(length_lk).amax(length_lk, axis=1)[:, None]
    found = [one for one, many in enumerate((2 * odd_lk.sum(axis=0) >= len(odd_lk)).tolist()) if many]
    if not found:
        return None
    layers = [facts.spread.layers[place] for place in places(odd_lk[:, found[0]]).tolist()]
    more = f", and of {len(layers) - 1} more layers" if len(layers) > 1 else ""
    text = f"{facts.name(found[0])}: the matrices of {layers[0]!r}{more} are 0"
    return Evidence(text, tuple(facts.located[one] for one in found))


def inputs(facts: Facts) -> Evidence | None:
    return _first_of([setting for setting in facts.settings if setting.of_inputs], facts)


def computed(facts: Facts) -> Evidence | None:
    """Find settings by which networks with the same weights compute different outputs: pooling, activation."""
    return _first_of([setting for setting in facts.settings if setting.of_network], facts)


def _first_of(settings: Sequence[Setting], facts: Facts) -> Evidence | None:
    if not settings:
        return None
    key, values = settings[0].key, settings[0].values
    other = next(number for number, value in enumerate(values) if value != values[0])
    more = f", and {len(settings) - 1} more settings" if len(settings) > 1 else ""
    paths = facts.checkpoints[0].path, facts.checkpoints[other].path
    usual = max(values, key=values.count)
    accused = tuple(one for one, value in zip(facts.checkpoints, values, strict=True) if value != usual)
    text = f"{key} is {values[0]} in {paths[0]} and {values[other]} in {paths[1]}{more}"
    return Evidence(text, accused if 2 * len(accused) < len(values) else ())


def ranges(facts: Facts) -> Evidence | None:
    """Find differing scales and zero points of quantisation-aware training: their means do not fit the mean weights."""
    if not facts.ranges:
        return None
    more = f", and {len(facts.ranges) - 1} more" if len(facts.ranges) > 1 else ""
    return Evidence(f"tensor {facts.ranges[0]!r} is not the same in all{more}", sure="likely")
