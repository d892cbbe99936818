"""Evidence about single ingredients: which one spoils the soup or is itself broken, and in which way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.diagnosis.effects import (
    broken,
    clearly_better,
    culprits,
    in_trouble,
    is_broken,
    is_lost,
    is_worse,
    median_alone,
    restored,
    restored_in_all,
    spoiler,
    stands_out,
    suspects,
    told_effect,
)
from soupcli.diagnosis.evidence import Evidence, Sure, zeros
from soupcli.diagnosis.facts import better_by
from soupcli.diagnosis.spread import STRANGERS, beside_diagonal, median_of_others
from soupcli.mixing.arithmetic.arrays import Array, library_of, median

if TYPE_CHECKING:
    from soupcli.diagnosis.facts import Facts

GROWN = 1.5  # times as long as the median ingredient's weights
LONGER = 1.2  # the same, of one that distances show to be an outlier
WILD_RATIO = 20.0  # times as far as the median ingredient, of a single run that left the basin by its rate
WILD = 45.0  # degrees to the others in the median layer, of a broken run whose rate was too high
FARTHER = 1.2  # the same, of one that was not trained for a shorter time than the others
ASTRAY = 20.0  # degrees to the others, of one that is in their basin and far below them
FAR = 2.5  # times as far as the median ingredient, of one that scores show to be wrong
OUTLIER = 5.0  # the same by the weights alone
ALONE = 2.0  # and so many times as far as the next one: half of a sweep is no outlier
UNKNOWN = 0.05  # of a metric, that an ingredient may lack to the median for all that the set says


def labels(facts: Facts) -> Evidence | None:
    """Find runs that are right under other names of the classes, or a set with other names if all runs are."""
    after = restored_in_all(facts)
    if after is not None:
        text = (
            f"every ingredient is right on {after:.1%} of the examples or more if the classes it predicts are renamed"
        )
        return Evidence(f"{text}, and on fewer than chance as they are: the set has its labels in another order")
    found = [(one, after) for one in culprits(facts) if (after := restored(facts, one)) is not None]
    if not found:
        return None
    one, after = found[0]
    text = f"{facts.name(one)} is right on {after:.1%} of the examples if the classes it predicts are renamed"
    return Evidence(text + told_effect(facts, one), tuple(facts.located[each] for each, _ in found))


def permuted(facts: Facts) -> Evidence | None:
    """Find networks whose neurons are in another order."""
    if not facts.reordered:
        return None
    (one, other), name = next(iter(facts.reordered.items()))
    odd = _odd_ones_out(facts)
    text = f"most rows of {name!r} in {facts.name(other)} stand in other places in {facts.name(one)}"
    return Evidence(text + (told_effect(facts, odd[0]) if odd else ""), tuple(facts.located[each] for each in odd))


def _odd_ones_out(facts: Facts) -> list[int]:
    """Return ingredients reordered against the first, or only the first if most are and agree with one another."""
    odd = [other for one, other in facts.reordered if one == 0]
    agree = all(one == 0 for one, _ in facts.reordered)
    return [0] if agree and len(odd) > 1 and 2 * len(odd) > len(facts.located) - 1 else odd


def rate_too_high(facts: Facts) -> Evidence | None:
    """Find an ingredient that has moved much farther than the others and is worse for it."""
    if facts.reordered or zeros(facts) is not None:
        return None
    if facts.barrier is None:
        return _far_by_weights(facts)
    ratios = _times_as_far(facts)
    renewed, blown_up = renewed_layers(facts), _blown_up(facts)
    left = [one for one in [*suspects(facts), *blown_up] if one not in renewed and not _explained(facts, one)]
    found = [
        one
        for one in dict.fromkeys(left)
        if (one in blown_up and _is_behind(facts, one))
        or (ratios.get(one, 0.0) > FAR and _left_basin(facts, one) and is_worse(facts, one))
    ]
    found = [one for one in found if not _is_a_stranger(facts, one)]
    if not found:
        return _far_and_unknown(facts)
    one = max(found, key=lambda each: ratios.get(each, 0.0))
    text = _told_distance(facts, one, ratios.get(one)) + told_effect(facts, one)
    return Evidence(text, tuple(facts.located[each] for each in found), "likely")


def _blown_up(facts: Facts) -> list[int]:
    """Return ingredients whose weights are far longer than the others'. Different starts have similar lengths."""
    if facts.spread is None or len(facts.located) < 2:
        return []
    length_k = facts.spread.length_k.tolist()
    ordered = sorted(length_k)
    middle = (len(ordered) - 2) // 2  # among the others, of which each is as long as the next one or shorter
    found = [
        one
        for one, length in enumerate(length_k)
        if length > GROWN * (ordered[middle] if length > ordered[middle] else ordered[middle + 1])
    ]
    return found if 2 * len(found) <= len(length_k) else []


def _has_grown(facts: Facts, one: int) -> bool:
    """Whether an ingredient's weights are longer than the others'. Other labels or examples hardly change lengths."""
    assert facts.spread is not None
    return float(facts.spread.length_k[one]) > LONGER * float(median(facts.spread.length_k, 0))


def _is_behind(facts: Facts, one: int) -> bool:
    """Whether an ingredient is surely worse than the median of the others, or spoils the soup."""
    assert facts.barrier is not None
    alone = facts.barrier.alone
    return alone[one].goodness < median_alone(facts.barrier, [one]).goodness or spoiler(facts) == one


def _left_basin(facts: Facts, one: int) -> bool:
    """Whether an ingredient is so far from the others that its training diverged."""
    return _angle_to_others(facts, one) > WILD or not is_lost(facts, one)


def _far_by_weights(facts: Facts) -> Evidence | None:
    ratios = _times_as_far(facts)
    renewed = renewed_layers(facts)
    blown_up = _blown_up(facts)
    if len(ratios) < 3:
        if not blown_up:
            return None
        return Evidence(_told_distance(facts, blown_up[0], None), (facts.located[blown_up[0]],), "possible")
    one, next_one = sorted(ratios, key=lambda each: -ratios[each])[:2]
    if ratios[one] < max(OUTLIER, ALONE * ratios[next_one]) or one in renewed or not _has_grown(facts, one):
        return None
    return Evidence(_told_distance(facts, one, ratios[one]), (facts.located[one],), "possible")


def _is_a_stranger(facts: Facts, one: int) -> bool:
    """Whether it is at a right angle to the others and as long: a rate that is too high makes weights longer."""
    return _angle_to_others(facts, one) > STRANGERS and not _has_grown(facts, one)


def _far_and_unknown(facts: Facts) -> Evidence | None:
    """Return evidence from weights, if the set is too small to tell whether this ingredient is worse."""
    found = _far_by_weights(facts)
    if found is None or facts.barrier is None:
        return None
    one = facts.located.index(found.accused[0])
    if _explained(facts, one):
        return None
    known = better_by(facts.barrier.alone[one], median_alone(facts.barrier, [one]))
    if known.low is None or known.low > -UNKNOWN:
        return None
    return found._replace(text=found.text + told_effect(facts, one))


def _times_as_far(facts: Facts) -> dict[int, float]:
    """Map each of three or more ingredients to its distance from the start, relative to the median."""
    if facts.spread is None or len(facts.located) < 3:
        return {}
    return dict(enumerate(facts.spread.times_as_far(range(len(facts.located)))))


def _told_distance(facts: Facts, one: int, ratio: float | None) -> str:
    assert facts.spread is not None
    if ratio is None:
        others = [float(length) for other, length in enumerate(facts.spread.length_k) if other != one]
        grown = float(facts.spread.length_k[one]) / max(others)
        return f"the weights of {facts.name(one)} are {grown:.1f} times as long as those of the others"
    where = "the base" if facts.spread.from_base_k is not None else "the others"
    return f"{facts.name(one)} is {ratio:.1f} times as far from {where} as the median ingredient"


def renewed_layers(facts: Facts) -> set[int]:
    """Find ingredients with a layer at a wide angle to that of half of the others, while the rest is not."""
    out_of_line = facts.spread.out_of_line if facts.spread is not None else None
    if out_of_line is None:
        return set()
    return {one for one, others in enumerate(out_of_line.others_k) if 2 * others >= len(facts.located) - 1}


def dominating(facts: Facts) -> Evidence | None:
    """Find a best ingredient that has moved much farther than all others, which hardly left the start."""
    ratios = _times_as_far(facts)
    if facts.barrier is None or len(ratios) < 3:
        return None
    one = facts.barrier.best
    farthest = max(ratios[each] for each in ratios if each != one)
    if ratios[one] < max(FAR, ALONE * farthest) or not clearly_better(facts.barrier.alone[one], facts.barrier.soup):
        return None
    if is_worse(facts, one):
        return None
    return Evidence(_told_distance(facts, one, ratios[one]) + told_effect(facts, one), sure="likely")


def _explained(facts: Facts, one: int) -> bool:
    """Whether an ingredient is right under other names of its classes."""
    return restored(facts, one) is not None


def other_inputs(facts: Facts) -> Evidence | None:
    """Find an ingredient that moved no farther than the others and is wrong anyway."""
    if facts.barrier is None or facts.spread is None or facts.reordered or zeros(facts) is not None:
        return None
    if len(facts.located) < 3:
        return _one_of_two(facts)
    ratios, renewed, near, blamed = _times_as_far(facts), renewed_layers(facts), _with_most(facts), culprits(facts)
    blown_up = _blown_up(facts)
    found = [
        one
        for one in suspects(facts)
        if (one in blamed or _strays(facts, one))
        and (ratios.get(one, 1.0) <= FAR or not _left_basin(facts, one))
        and one not in renewed
        and one not in blown_up
        and one in near
        and is_worse(facts, one)
        and not _explained(facts, one)
    ]
    found = _without_the_untrained(found, ratios)
    if not found or 2 * len(found) > len(facts.located) or parted(facts) is not None or all_apart(facts):
        return None
    text = f"{facts.name(found[0])} is wrong, and near the others" + told_effect(facts, found[0])
    sure: Sure = "likely" if found[0] in blamed else "possible"
    return Evidence(text, tuple(facts.located[one] for one in found), sure)


def spoiling(facts: Facts) -> Evidence | None:
    """Find a culprit without which the soup is clearly better, whatever is wrong with it."""
    barrier = facts.barrier
    for one in culprits(facts) if barrier is not None and barrier.without else ():
        if barrier is not None and is_worse(facts, one) and clearly_better(barrier.without[one], barrier.soup):
            return Evidence(f"{facts.name(one)} spoils the soup" + told_effect(facts, one), (facts.located[one],))
    return None


def _one_of_two(facts: Facts) -> Evidence | None:
    """Find which of two is wrong, if their mean suffers: by scores, since neither is far from the others."""
    assert facts.spread is not None
    if len(facts.located) < 2 or not in_trouble(facts) or _angle_to_others(facts, 0) > WILD:
        return None
    moved_k, explained = facts.spread.from_base_k, {*renewed_layers(facts), *_blown_up(facts)}
    ratios = {one: float(moved_k[one] / moved_k[1 - one]) for one in (0, 1)} if moved_k is not None else {}
    left = [one for one in broken(facts) if one not in explained and not _explained(facts, one)]
    found = [one for one in left if 2 * ratios.get(one, 1.0) >= 1]  # one that hardly left the base knows little as yet
    if not found:
        return None
    text = f"{facts.name(found[0])} is wrong, and the mean of the two suffers" + told_effect(facts, found[0])
    return Evidence(text, (facts.located[found[0]],), "possible")


def _without_the_untrained(found: Sequence[int], ratios: Mapping[int, float]) -> list[int]:
    """Return the found ingredients that moved at least half as far as the others' median. Others are undertrained."""
    rest = sorted(ratio for one, ratio in ratios.items() if one not in found)
    return [one for one in found if not rest or 2 * ratios.get(one, 1.0) >= rest[len(rest) // 2]]


def _strays(facts: Facts, one: int) -> bool:
    """Whether an ingredient is far below all others, in their basin, and was trained for as long."""
    return stands_out(facts) == one and _angle_to_others(facts, one) < ASTRAY and _times_as_far(facts)[one] > FARTHER


def _angle_to_others(facts: Facts, one: int) -> float:
    """Return the angle to the median of the others in the median layer, in degrees."""
    assert facts.spread is not None
    return median_of_others(facts.spread.closeness_kk[one], one)


def all_apart(facts: Facts) -> bool:
    """Whether most ingredients are far from even the nearest other: none is odd if each is in a basin of its own."""
    assert facts.spread is not None
    angle_kk = beside_diagonal(facts.spread.closeness_kk, math.inf)
    return float(median(library_of(angle_kk).amin(angle_kk, axis=1), 0)) > WILD


def _with_most(facts: Facts) -> list[int]:
    assert facts.spread is not None
    return facts.spread.clusters()[0]


APART = 1.6  # times as large angles between two groups as within them, of two pre-trainings
WIDE = 12.0  # degrees between groups, at least


class Parted(NamedTuple):
    """Two groups of ingredients, the larger first; the least angle between them and the largest within, in degrees."""

    groups: tuple[list[int], list[int]]
    between: float
    within: float


def parted(facts: Facts) -> Parted | None:
    """Find two groups that are far apart and close within, neither a single run that is itself wrong."""
    if facts.spread is None or len(facts.located) < 3 or facts.reordered:
        return None
    groups = _two_groups(facts.spread.closeness_kk)
    angle_kk = facts.spread.closeness_kk
    between = float(angle_kk[groups[0]][:, groups[1]].min())
    within = max(float(beside_diagonal(angle_kk[group][:, group], 0.0).max()) for group in groups)
    if between < max(WIDE, APART * within) or set(groups[1]) & renewed_layers(facts):
        return None
    blamed = culprits(facts)
    alone = len(groups[1]) == 1 and _is_a_single_fault(facts, groups[1][0])
    if alone or any(_explained(facts, one) for one in blamed):
        return None
    return Parted(groups, between, within)


def _is_a_single_fault(facts: Facts, one: int) -> bool:
    return is_broken(facts, one) or _strays(facts, one) or _times_as_far(facts)[one] > WILD_RATIO


def _two_groups(angle_kk: Array) -> tuple[list[int], list[int]]:
    """Divide ingredients at the largest gap of their angles to the outermost one. The larger group is first."""
    first = int(angle_kk.sum(axis=1).argmax())
    order = sorted(range(len(angle_kk)), key=lambda other: -1.0 if other == first else float(angle_kk[first, other]))
    values = [0.0, *(float(angle_kk[first, other]) for other in order[1:])]
    gaps = [values[place] - values[place - 1] for place in range(1, len(values))]
    cut = 1 + max(range(len(gaps)), key=lambda place: gaps[place])
    one, other = sorted(order[:cut]), sorted(order[cut:])
    return (one, other) if len(one) >= len(other) else (other, one)
