"""The tests of the known causes: each gives the evidence that it finds, None where it is not the cause.

They look at numbers alone (see facts.py); which cause they are of, and what to do, stands in verdicts.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import is_averaged
from soupcli.checkpoints.compare.differences import FATAL, Difference
from soupcli.diagnosis.facts import Facts, better_by, by_loss, surely_better
from soupcli.networks.geometry import layers_by_name

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

# A layer that was made anew begins at 90 degrees to another, and training on the same labels brings both closer: a
# linear head of few inputs to 70. Heads that all began at zero stood at under 30.
NEW_LAYER = 60.0
# Up to where the median layer shows that the rest has a common start and did not go far.
IN_LINE = 40.0
# Displacements of one sweep were within 1.8 times their median (learning rates over a factor of 3, epochs over 2).
OUTLIER = 4.0
# Points of accuracy: fine-tuning runs of one sweep mostly lie within so many, and soups gain about one.
TOLD_APART = 0.05


def other_networks(facts: Facts) -> str | None:
    fatal = _of_names(facts)
    return _told(fatal) if fatal and not _in_heads(facts, fatal) else None


def other_classes(facts: Facts) -> str | None:
    fatal = _of_names(facts)
    return _told(fatal) if fatal and _in_heads(facts, fatal) else None


def _of_names(facts: Facts) -> list[Difference]:
    return [each for each in facts.differences if each.kind in FATAL and each.kind != "key"]


def _in_heads(facts: Facts, fatal: list[Difference]) -> bool:
    """Whether no more than the layers that give the outputs differ: two at most, and not most of the network."""
    if any(each.kind == "format" for each in fatal) or not any(_is_weight(facts, each.tensor) for each in fatal):
        return False
    layers = layers_by_name({name: None for one in facts.checkpoints for name in one.tensors})
    names = {each.tensor for each in fatal}
    touched = [layer for layer, members in layers.items() if names & set(members)]
    return len(touched) <= 2 and 2 * len(touched) <= len(layers)


def _is_weight(facts: Facts, tensor: str | None) -> bool:
    """Whether it is a tensor that is averaged, as a layer that gives outputs has."""
    specs = (one.tensors.get(tensor or "") for one in facts.checkpoints)
    return any(spec is not None and is_averaged(spec.dtype) for spec in specs)


def _told(differences: list[Difference]) -> str:
    first = differences[0]
    more = f", and {len(differences) - 1} more differences" if len(differences) > 1 else ""
    return f"{first.checkpoint.path}: {first}{more}"


def other_keys(facts: Facts) -> str | None:
    keys = [each for each in facts.differences if each.kind == "key"]
    return _told(keys) if keys else None


def overflow(facts: Facts) -> str | None:
    bad = [each for each in facts.not_finite if _isoverflow(*each)]
    return _told_numbers(bad, "float16 ends at 65504") if bad else None


def diverged(facts: Facts) -> str | None:
    bad = [each for each in facts.not_finite if not _isoverflow(*each)]
    return _told_numbers(bad, "") if bad else None


def _isoverflow(checkpoint: Checkpoint, name: str, value: float) -> bool:
    return checkpoint.tensors[name].dtype == torch.float16 and math.isinf(value)


def _told_numbers(bad: list[tuple[Checkpoint, str, float]], why: str) -> str:
    checkpoint, name, value = bad[0]
    more = f", and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
    return f"{checkpoint.path}: tensor {name!r} holds {value}{more}" + (f" ({why})" if why else "")


def copies(facts: Facts) -> str | None:
    if not facts.duplicates:
        return None
    one, other = facts.duplicates[0]
    more = f", and {len(facts.duplicates) - 1} more" if len(facts.duplicates) > 1 else ""
    return f"{other.path} holds the weights of {one.path}, bit for bit{more}"


def strangers(facts: Facts) -> str | None:
    if facts.spread is None:
        return None
    groups = facts.spread.clusters()
    if len(groups) < 2:
        return None
    one, other = groups[0][0], groups[1][0]
    angle = float(facts.spread.closeness_kk[one, other])
    evidence = (
        f"{facts.name(one)} and {facts.name(other)} stand at {angle:.0f} degrees in the median layer "
        f"(fine-tuned from one start: under 30, strangers: 90); {len(groups)} groups of "
        f"{', '.join(str(len(group)) for group in groups[:6])}"
    )
    return evidence + _told_collapse(facts)


def _told_collapse(facts: Facts) -> str:
    if facts.barrier is None:
        return ""
    mean, alone = facts.barrier.mean, facts.barrier.alone
    best = max(alone, key=lambda score: score.goodness)
    return f"; the mean of all has {mean.selecting} {mean.value:.4f}, the best ingredient {best.value:.4f}"


def new_layers(facts: Facts) -> str | None:
    """A layer that stands across while the rest of the network does not."""
    angle_lkk = _out_of_line(facts)
    if facts.spread is None or not bool(angle_lkk.any()):
        return None
    place = int(angle_lkk.flatten(1).amax(1).argmax())
    one, other = divmod(int(angle_lkk[place].argmax()), angle_lkk.shape[1])
    return (
        f"layer {facts.spread.layers[place]!r} of {facts.name(one)} and {facts.name(other)}: "
        f"{angle_lkk[place].max():.0f} degrees, in the median layer {facts.spread.closeness_kk[one, other]:.0f}"
    )


def _out_of_line(facts: Facts) -> Tensor:
    """[l, k, k]: angles of layers that were made anew in one of a pair, 0 elsewhere."""
    if facts.spread is None or not facts.spread.layers:
        return torch.zeros(1, 1, 1)
    angle_lkk = facts.spread.angle_lkk.nan_to_num(0.0)
    return angle_lkk.masked_fill((angle_lkk < NEW_LAYER) | (facts.spread.closeness_kk > IN_LINE), 0.0)


def _outliers(facts: Facts) -> list[tuple[int, float]]:
    """Ingredients of the largest group that moved much farther than most, and how many times as far."""
    if facts.spread is None:
        return []
    group = facts.spread.clusters()[0]
    if len(group) < 3:
        return []
    ratios = zip(group, facts.spread.times_as_far(group), strict=True)
    # A new layer has to be learned, which moves all others: that is no sign of the rate.
    renewed_k = (_out_of_line(facts) > 0).any(0).sum(1) * 2 >= len(facts.located) - 1
    return [(one, ratio) for one, ratio in ratios if ratio > OUTLIER and not renewed_k[one]]


def rate_too_high(facts: Facts) -> str | None:
    found = [(one, ratio) for one, ratio in _outliers(facts) if not _holds_its_own(facts, one)]
    if not found:
        return None
    one, ratio = max(found, key=lambda each: each[1])
    return _told_distance(facts, one, ratio) + _told_score(facts, one)


def dominating(facts: Facts) -> str | None:
    found = [(one, ratio) for one, ratio in _outliers(facts) if facts.barrier and _holds_its_own(facts, one)]
    if not found:
        return None
    one, ratio = max(found, key=lambda each: each[1])
    return _told_distance(facts, one, ratio) + _told_score(facts, one)


def _holds_its_own(facts: Facts, ingredient: int) -> bool:
    """Whether it was scored and is no worse than the median of the others."""
    if facts.barrier is None:
        return False
    alone = facts.barrier.alone
    return not surely_better(by_loss(alone[_median(facts, ingredient)]), by_loss(alone[ingredient]))


def _median(facts: Facts, but: int) -> int:
    """The ingredient with the median score among the others."""
    assert facts.barrier is not None
    alone = facts.barrier.alone
    others = sorted((number for number in range(len(alone)) if number != but), key=lambda n: alone[n].goodness)
    return others[len(others) // 2]


def _told_distance(facts: Facts, one: int, ratio: float) -> str:
    assert facts.spread is not None
    where = "the base" if facts.spread.from_base_k is not None else "the others"
    return f"{facts.name(one)} is {ratio:.1f} times as far from {where} as the median ingredient"


def _told_score(facts: Facts, one: int) -> str:
    if facts.barrier is None:
        return ""
    alone, median = facts.barrier.alone, _median(facts, one)
    score = alone[one]
    return f", with {score.selecting} {score.value:.4f} where the median of the others has {alone[median].value:.4f}"


def statistics(facts: Facts) -> str | None:
    if facts.barrier is None or facts.barrier.settled_mean is None:
        return None
    mean, settled = facts.barrier.mean, facts.barrier.settled_mean
    if not surely_better(settled, mean):
        return None
    return (
        f"the mean of all has {mean.selecting} {mean.value:.4f} with averaged running statistics, {settled.value:.4f} "
        "with statistics estimated again"
    )


def inputs(facts: Facts) -> str | None:
    of_inputs = [setting for setting in facts.settings if setting.of_inputs]
    if not of_inputs:
        return None
    key, values, _ = of_inputs[0]
    other = next(number for number, value in enumerate(values) if value != values[0])
    more = f", and {len(of_inputs) - 1} more settings" if len(of_inputs) > 1 else ""
    paths = facts.checkpoints[0].path, facts.checkpoints[other].path
    return f"{key} is {values[0]} in {paths[0]} and {values[other]} in {paths[1]}{more}"


def too_far(facts: Facts) -> str | None:
    """One start, all in order, and still the mean is worse than the worst ingredient."""
    explained = (strangers, new_layers, rate_too_high, dominating, statistics, inputs)
    if facts.barrier is None or any(find(facts) for find in explained):
        return None
    worst = min(facts.barrier.alone, key=lambda score: score.goodness)
    if not surely_better(worst, facts.barrier.mean):
        return None
    return f"the worst ingredient has {worst.selecting} {worst.value:.4f}" + _told_collapse(facts)


def too_few(facts: Facts) -> str | None:
    if facts.barrier is None or len(facts.barrier.alone) < 2:
        return None
    ranked = sorted(facts.barrier.alone, key=lambda score: -score.goodness)
    pairs = [(ranked[0], ranked[-1]), (ranked[0], facts.barrier.mean), (facts.barrier.mean, ranked[-1])]
    widths = []
    for one, other in pairs:
        found = better_by(one, other)
        if found.p is None or found.low is None or found.high is None or found.low > 0 or found.high < 0:
            return None
        widths.append((found.high - found.low) / 2)
    examples = ranked[0].metrics[ranked[0].selecting].n
    # A pair that agrees on each of n examples may still differ on three in n of all others (95%).
    width = max(*widths, 3 / examples if examples else 0.0)
    if width <= TOLD_APART:
        return None
    return (
        f"{examples} examples: best and worst ingredient ({ranked[0].value:.4f} and {ranked[-1].value:.4f}) cannot be "
        f"told apart, nor the mean from either; differences are known to ± {width * 100:.1f} points"
    )
