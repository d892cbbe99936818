"""The effect of each ingredient on the soup, from scores only: whether the soup is bad, and which one spoils it.

A soup is in trouble if it is surely worse than the median ingredient. An ingredient spoils it if the soup without it is
surely better, by half of the loss and twice as much as without any other. An ingredient is broken if it agrees with the
labels, beyond chance, less than `KEPT` of what the median does (`LITTLE`, if it lacks few points). It stands out if it
is far below all others, which are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.diagnosis.evidence import Evidence
from soupcli.diagnosis.facts import better_by, surely_better
from soupcli.late import torch
from soupcli.wording import SHARES

if TYPE_CHECKING:
    from soupcli.diagnosis.barrier import Barrier
    from soupcli.diagnosis.facts import Facts
    from soupcli.evaluation.score import Score

KEPT = 0.7
LITTLE = 0.3  # the same, of one that lacks few points: where all know little, runs of a sweep differ by a part of it
PART = 0.5  # of what the soup has lost, that it regains without the one that spoils it
LEAD = 1.6  # times as much as without any other
LOST = 0.02  # of a share that a soup loses before it is in trouble
BELOW = 0.05  # of a share, that one stands below all others
ALIKE = 3.0  # and so many times as much as these are apart
DISTINCT = 0.75  # of the classes, that are each mostly predicted as a class of their own under other names
RESTORED = 0.35  # of what a run lacks, by other names for its classes
# Points of accuracy: fine-tuning runs of one sweep mostly lie within so many, and soups gain about one.
TOLD_APART = 0.05
CONFUSION = "f1"  # the metric whose contributions are predicted and true classes


def median_alone(barrier: Barrier, but: Sequence[int] = ()) -> Score:
    """Return the score of the median ingredient, the better of two, without those in `but`."""
    left = sorted(
        (score for one, score in enumerate(barrier.alone) if one not in but), key=lambda score: -score.goodness
    )
    return left[(len(left) - 1) // 2]


def in_trouble(facts: Facts) -> bool:
    """Whether the mean of all is surely worse than the median ingredient, by a margin."""
    if facts.barrier is None:
        return False
    return clearly_better(median_alone(facts.barrier), facts.barrier.soup)


def clearly_better(one: Score, other: Score) -> bool:
    """Whether the first is surely better, and by more than a soup may lose of a share."""
    apart = one.goodness - other.goodness
    return surely_better(one, other) and (one.selecting not in SHARES or apart > LOST)


def spoiler(facts: Facts) -> int | None:
    """Return the ingredient whose removal improves the soup far more than any other's, or None."""
    barrier = facts.barrier
    if barrier is None or not barrier.without or not in_trouble(facts):
        return None
    gains = [score.goodness - barrier.soup.goodness for score in barrier.without]
    first, second = sorted(range(len(gains)), key=lambda one: -gains[one])[:2]
    lost = median_alone(barrier, [first]).goodness - barrier.soup.goodness
    if gains[first] < max(PART * lost, LEAD * gains[second]) or not surely_better(barrier.without[first], barrier.soup):
        return None
    return first


def broken(facts: Facts) -> list[int]:
    """Return the ingredients whose own score is far below the median one's, relative to chance."""
    barrier = facts.barrier
    if barrier is None or len(barrier.alone) < 2:
        return []
    return [one for one in range(len(barrier.alone)) if _is_broken(barrier, one)]


def is_broken(facts: Facts, one: int) -> bool:
    """Whether an ingredient's own score is far below the median one's, relative to chance."""
    return facts.barrier is not None and _is_broken(facts.barrier, one)


def _is_broken(barrier: Barrier, one: int) -> bool:
    score, median = barrier.alone[one], median_alone(barrier, [one])
    if not surely_better(median, score):
        return False
    if score.selecting not in SHARES:
        return _by_itself(barrier, one)
    kept = KEPT if median.value - score.value > BELOW else LITTLE
    return beyond_chance(score) < kept * beyond_chance(median)


def _by_itself(barrier: Barrier, one: int) -> bool:
    """Whether a score without a chance level is ten times as far below the median as any other."""
    others = [score.goodness for place, score in enumerate(barrier.alone) if place != one]
    median = median_alone(barrier, [one]).goodness
    return median - barrier.alone[one].goodness > 10 * max(median - min(others), 1e-3 * abs(median))


def beyond_chance(score: Score) -> float:
    """Return Cohen's kappa (1960): 0 if predictions agree with labels as often as by chance, 1 if always.

    Chance has each network name its classes as often as it does, so it is low for one that errs on all classes alike,
    also where most examples are of one class. Returns the score itself if classes are unknown or there is only one.
    """
    outcomes = score.outcomes.get(CONFUSION)
    if outcomes is None or outcomes.dim() != 2 or bool((outcomes[:, 1] == outcomes[0, 1]).all()):
        return score.value
    classes, n = int(outcomes[0, 2]), len(outcomes)
    named_k, true_k = (torch.bincount(of[of >= 0], minlength=classes) / n for of in outcomes[:, :2].T)
    chance = float(named_k @ true_k)
    return (float((outcomes[:, 0] == outcomes[:, 1]).double().mean()) - chance) / (1 - chance)


def chance_of(score: Score) -> float:
    """Return the share of the most frequent class, or 0 if classes are unknown."""
    outcomes = score.outcomes.get(CONFUSION)
    if outcomes is None or outcomes.dim() != 2:
        return 0.0
    return float(torch.bincount(outcomes[:, 1]).max()) / len(outcomes)


def stands_out(facts: Facts) -> int | None:
    """Return the one ingredient whose own score is far below all others, which are alike, or None.

    The soup may not suffer from it, because it has lost less than a broken one.
    """
    barrier = facts.barrier
    if barrier is None or len(barrier.alone) < 4 or barrier.alone[0].selecting not in SHARES:
        return None
    *others, last = sorted(range(len(barrier.alone)), key=lambda one: -barrier.alone[one].goodness)
    best, worst, value = (barrier.alone[one].goodness for one in (others[0], others[-1], last))
    apart = worst - value > max(BELOW, ALIKE * (best - worst))
    return last if apart and surely_better(barrier.alone[others[-1]], barrier.alone[last]) else None


def is_lost(facts: Facts, one: int) -> bool:
    """Whether an ingredient is broken, or far below all others."""
    return is_broken(facts, one) or stands_out(facts) == one


def suspects(facts: Facts) -> list[int]:
    """Return the culprits, and the one that is far below all others, if any."""
    blamed, one = culprits(facts), stands_out(facts)
    return blamed if one is None or one in blamed else [*blamed, one]


def culprits(facts: Facts) -> list[int]:
    """Return the culprits, worst first: the one that spoils the soup, and those that are broken."""
    one = spoiler(facts)
    found = broken(facts)
    if facts.barrier is not None:
        alone = facts.barrier.alone
        found = sorted(found, key=lambda each: alone[each].goodness)
    return [*([one] if one is not None else []), *(each for each in found if each != one)]


def relabelled(score: Score) -> float | None:
    """Return the accuracy with predicted classes renamed as fits best, or None if classes are unknown.

    Returns None too if several classes are mostly predicted as the same one: then no renaming explains the errors. That
    of a network that knows little always fits a part of them.
    """
    outcomes = score.outcomes.get(CONFUSION)
    if outcomes is None or outcomes.dim() != 2:
        return None
    classes = int(outcomes[0, 2])
    known = outcomes[outcomes[:, 0] >= 0]
    if len(outcomes) < 5 * classes or classes < 2:
        return None
    cells = torch.bincount(known[:, 0] * classes + known[:, 1], minlength=classes * classes)
    cells_pt = cells.view(classes, classes)
    usual_t = cells_pt.argmax(dim=0)[cells_pt.any(dim=0)]
    if len(usual_t.unique()) < DISTINCT * len(usual_t):
        return None
    right, named, true = 0, set[int](), set[int]()
    for cell in cells.argsort(descending=True, stable=True).tolist():
        predicted, label = divmod(cell, classes)
        if predicted not in named and label not in true:
            named.add(predicted)
            true.add(label)
            right += int(cells[cell])
    return right / len(outcomes)


def restored(facts: Facts, one: int) -> float | None:
    """Return the accuracy after renaming if it restores most of what the ingredient lacks, else None."""
    assert facts.barrier is not None
    score, median = facts.barrier.alone[one], median_alone(facts.barrier, [one])
    own, other = (each.metrics.get("accuracy") for each in (score, median))
    after = relabelled(score)
    if after is None or own is None or other is None:
        return None
    lacks = other.value - own.value
    enough = lacks > max(0.05, 3 * (own.stderr or 0.0)) and after - own.value > RESTORED * lacks
    return after if enough else None


def restored_in_all(facts: Facts) -> float | None:
    """Return the least accuracy after renaming, if all are worse than chance and renaming restores each, else None."""
    found = []
    for score in facts.barrier.alone if facts.barrier is not None else []:
        own, after, chance = score.metrics.get("accuracy"), relabelled(score), chance_of(score)
        if own is None or after is None or own.value + 3 * (own.stderr or 0.0) >= chance:
            return None
        if after - chance < (1 - chance) / 4:
            return None
        found.append(after)
    return min(found, default=None)


def told_effect(facts: Facts, one: int) -> str:
    """Return e.g. `; alone accuracy 0.3120, the median of the others 0.7900; the soup 0.5100, without it 0.8020`."""
    barrier = facts.barrier
    if barrier is None:
        return ""
    score, median = barrier.alone[one], median_alone(barrier, [one])
    said = f"; alone it has {score.selecting} {score.shown}, the median of the others {median.shown}"
    if barrier.without:
        said += f"; the mean of all {barrier.soup.value:.4f}, without it {barrier.without[one].value:.4f}"
    return said


def is_worse(facts: Facts, one: int) -> bool:
    """Whether an ingredient's own score is surely worse than the others' median, in the metric that is shown."""
    assert facts.barrier is not None
    return surely_better(median_alone(facts.barrier, [one]), facts.barrier.alone[one])


def doubt(one: Score, other: Score) -> float | None:
    """Return half the width of a difference's interval, or None if it excludes 0 or is unknown."""
    found = better_by(one, other)
    if found.p is None or found.low is None or found.high is None or found.low > 0 or found.high < 0:
        return None
    return (found.high - found.low) / 2


def too_few(facts: Facts) -> Evidence | None:
    """Find a set too small to tell ingredients and soup apart. Ingredients known to be wrong do not count."""
    if facts.barrier is None:
        return None
    if facts.barrier.mean.metrics[facts.barrier.mean.selecting].n == 1:
        return Evidence("1 example tells nothing apart")
    blamed = culprits(facts)
    ranked = sorted(
        (score for one, score in enumerate(facts.barrier.alone) if one not in blamed), key=lambda s: -s.goodness
    )
    if len(ranked) < 2:
        return None
    pairs = [(ranked[0], ranked[-1])]
    if not blamed and not in_trouble(facts):
        pairs += [(ranked[0], facts.barrier.mean), (facts.barrier.mean, ranked[-1])]
    widths = [doubt(one, other) for one, other in pairs]
    known = [width for width in widths if width is not None]
    if len(known) < len(widths) or max(known) <= TOLD_APART:
        return None
    examples = ranked[0].metrics[ranked[0].selecting].n
    return Evidence(
        f"{examples} examples: best and worst ingredient ({ranked[0].value:.4f} and {ranked[-1].value:.4f}) cannot be "
        f"told apart; differences are known to ± {max(known) * 100:.1f} points"
    )
