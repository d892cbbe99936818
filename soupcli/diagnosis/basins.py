"""Evidence of ingredients in different basins: their starts, layers, base and distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.diagnosis import culprits, evidence
from soupcli.diagnosis.culprits import renewed_layers
from soupcli.diagnosis.effects import broken, in_trouble, is_worse, median_alone, spoiler, suspects, told_effect
from soupcli.diagnosis.evidence import Evidence
from soupcli.diagnosis.facts import by_loss, surely_better
from soupcli.wording import SHARES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.diagnosis.facts import Facts
    from soupcli.evaluation.score import Score

MUCH = 0.05  # of a share that the mean lacks to the median ingredient
OTHER_START = 25.0  # degrees between groups that other pre-trainings show; runs on other inputs lie nearer
OFF_BASE = 2.0  # times as large an angle to the base as between ingredients, of a base that is not theirs
BASE_ANGLE = 20.0
EXCHANGED = 1.3  # times as many rows as one of the ingredients would have beyond all others


def strangers(facts: Facts) -> Evidence | None:
    """Find groups of ingredients without a common start, by the angles between them."""
    if facts.spread is None or facts.reordered or evidence.zeros(facts) is not None:
        return None
    groups = facts.spread.clusters()
    if not _may_lose(facts) and (len(groups) < 2 or facts.adapters or not _all_worse(facts, groups[1:])):
        return None
    if len(groups) < 2:
        return _two_pretrainings(facts)
    if culprits.rate_too_high(facts) is not None and len(groups[0]) == len(facts.located) - 1:
        return None
    one, other = groups[0][0], groups[1][0]
    angle = float(facts.spread.closeness_kk[one, other])
    text = (
        f"{facts.name(one)} and {facts.name(other)} stand at {angle:.0f} degrees in the median layer "
        f"(fine-tuned from one start: under 30, strangers: 90); {len(groups)} groups of "
        f"{', '.join(str(len(group)) for group in groups[:6])}"
    )
    accused = tuple(facts.located[each] for group in groups[1:] for each in group)
    return Evidence(
        text + _told_collapse(facts), accused, "certain" if len(groups[0]) > 1 and in_trouble(facts) else "likely"
    )


def _all_worse(facts: Facts, groups: Sequence[Sequence[int]]) -> bool:
    """Whether each ingredient of the groups is worse by itself: a large mean may outweigh the one that spoils it."""
    return all(is_worse(facts, each) for group in groups for each in group)


def _may_lose(facts: Facts) -> bool:
    """Whether the mean may be no better than the best ingredient. Without scores it is assumed to be so.

    Adapters are judged only by scores. They change a part of the network, and may turn it far in a healthy family.
    """
    barrier = facts.barrier
    if facts.adapters:
        return in_trouble(facts)
    return barrier is None or barrier.soup.goodness <= barrier.alone[barrier.best].goodness


def _two_pretrainings(facts: Facts) -> Evidence | None:
    """Find two groups that are far apart and close within, whose mean collapses or of which one is worse."""
    found = culprits.parted(facts)
    if found is None or facts.barrier is None:
        return None
    (larger, smaller), between, within = found
    apart = between > OTHER_START and len(smaller) > 1 and all(is_worse(facts, one) for one in smaller)
    if not in_trouble(facts) and not apart:
        return None
    text = (
        f"two groups of {len(larger)} and {len(smaller)} stand at {between:.0f} degrees or more in the median "
        f"layer, at {within:.0f} or less among themselves"
    )
    accused = tuple(facts.located[one] for one in smaller)
    return Evidence(text + _told_collapse(facts), accused, "likely" if in_trouble(facts) else "possible")


def _told_collapse(facts: Facts) -> str:
    if facts.barrier is None:
        return ""
    soup, best = facts.barrier.soup, facts.barrier.alone[facts.barrier.best]
    return f"; the mean of all has {soup.selecting} {soup.shown}, the best ingredient {best.shown}"


def new_layers(facts: Facts) -> Evidence | None:
    """Find a layer at a wide angle while the rest of the network is not."""
    out_of_line = facts.spread.out_of_line if facts.spread is not None else None
    if facts.spread is None or out_of_line is None or facts.reordered or evidence.zeros(facts) is not None:
        return None
    if facts.adapters and not in_trouble(facts):
        return None
    one, other = out_of_line.pair
    text = (
        f"layer {facts.spread.layers[out_of_line.layer]!r} of {facts.name(one)} and {facts.name(other)}: "
        f"{out_of_line.angle:.0f} degrees, in the median layer {facts.spread.closeness_kk[one, other]:.0f}"
    )
    renewed = sorted(renewed_layers(facts))
    accused = renewed if 2 * len(renewed) < len(facts.located) else []
    said = told_effect(facts, accused[0]) if len(accused) == 1 else ""
    return Evidence(text + said, tuple(facts.located[each] for each in accused), "likely")


def wrong_base(facts: Facts) -> Evidence | None:
    """Find a base that is far from all ingredients while these are close to one another."""
    spread = facts.spread
    if spread is None or spread.base_angle_k is None or len(facts.located) < 2:
        return None
    nearest = float(spread.base_angle_k.min())
    among = float(spread.closeness_kk.max())
    if nearest < max(BASE_ANGLE, OFF_BASE * among):
        return _fine_tuned_base(facts)
    return Evidence(
        f"the base stands at {nearest:.0f} degrees or more from every ingredient in the median layer, they at "
        f"{among:.0f} or less from one another",
        sure="likely",
    )


def _fine_tuned_base(facts: Facts) -> Evidence | None:
    """Find a base that is itself fine-tuned: it lies as one more ingredient would, and is as good."""
    if facts.base is None or facts.barrier is None or facts.spread is None or len(facts.spread.clusters()) > 1:
        return None
    (score, beyond), median = facts.base, median_alone(facts.barrier)
    if score is None:
        return None
    if facts.spread.base_is_beside_them:
        return _one_more_run(facts, score)
    usual = 2 / (len(facts.located) + 1)
    if beyond is None or beyond > EXCHANGED * usual:
        return None
    if surely_better(median, score) or surely_better(by_loss(median), by_loss(score)):
        return None
    return Evidence(
        f"the base is as far from each ingredient as the nearest other one, and as good: it has {score.selecting} "
        f"{score.shown}, the median of them {median.shown}; {beyond:.0%} of its rows are longer or shorter than "
        f"in all ingredients (of one more ingredient {usual:.0%}, of a start most)",
        sure="possible",
    )


def _one_more_run(facts: Facts, base: Score) -> Evidence | None:
    """Return evidence that a base beside the ingredients is a run like the farthest one: it is as good."""
    assert facts.spread is not None and facts.barrier is not None
    one = facts.spread.outermost
    like = facts.barrier.alone[one]
    if suspects(facts) or surely_better(like, base):
        return None
    return Evidence(
        f"{facts.name(one)} is farthest from the others and no farther from the base than they are, as if the base "
        f"were one more such run; it is as good: it has {base.selecting} {base.shown}, {facts.name(one)} {like.shown}",
        sure="possible",
    )


def too_far(facts: Facts) -> Evidence | None:
    """Find ingredients with one start and no culprit whose mean is far worse than most, or worse and all apart."""
    others = (
        strangers,
        new_layers,
        culprits.labels,
        culprits.permuted,
        culprits.rate_too_high,
        culprits.other_inputs,
        culprits.dominating,
        evidence.inputs,
        evidence.ranges,
        evidence.zeros,
    )
    if facts.barrier is None or facts.spread is None or not in_trouble(facts) or any(find(facts) for find in others):
        return None
    apart = culprits.all_apart(facts)
    if broken(facts) and not apart:
        return None
    worst = min(facts.barrier.alone, key=lambda score: score.goodness)
    lost = median_alone(facts.barrier).goodness - facts.barrier.soup.goodness
    far_worse = surely_better(worst, facts.barrier.soup) or (worst.selecting in SHARES and lost >= MUCH)
    if not far_worse and not apart:
        return None
    text = f"the worst ingredient has {worst.selecting} {worst.shown}" + _told_collapse(facts)
    one = spoiler(facts)
    if one is not None:
        return Evidence(text + told_effect(facts, one), (facts.located[one],), "likely")
    return Evidence(text, sure="likely")


def statistics(facts: Facts) -> Evidence | None:
    """Find averaged batch-norm statistics that do not fit the averaged weights."""
    if facts.barrier is None or facts.barrier.settled_mean is None:
        return None
    mean, settled = facts.barrier.mean, facts.barrier.settled_mean
    if not surely_better(settled, mean):
        return None
    left = ", which is still below the median ingredient" if in_trouble(facts) else ""
    return Evidence(
        f"the mean of all has {mean.selecting} {mean.shown} with averaged running statistics, {settled.shown} "
        f"with statistics estimated again{left}"
    )
