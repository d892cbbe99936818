"""Warns of scores that are too low or all the same: near chance, or far below what the trainer recorded.

Each warning says what to check.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soupcli.checkpoints.training_record import highest_in_table, record_of
from soupcli.late import torch
from soupcli.run.methods.batch_norm import has_statistics
from soupcli.wording import SHARES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Score
    from soupcli.report.scores import Scores
    from soupcli.report.soups import OtherStatistics
    from soupcli.run.run import Run

ACCURACIES = {"accuracy", "acc", "top1", "acc1", "acc_1", "accuracy_top1"}
PREFIXES = ("metrics/", "eval_", "val_", "valid_", "test_", "eval/", "val/", "test/")
FAR = 0.1  # of a share
FEWEST = 50  # examples: fewer tell nothing from guessing
ERRORS = 3  # standard errors
WHY_NAN = (
    "its outputs overflow (--amp and half precision do so first), or they are all equal; soup inspect shows which "
    "ingredients do not go together"
)
HIGH = 0.5  # of a share: networks with statistics that are far off do not reach it
FEWEST_SAME = 3  # checkpoints: two may well have the same score


def say_suspicions(run: Run, scored: Sequence[tuple[Checkpoint, Mapping[str, Score]]]) -> None:
    """Warn if the best accuracy on a set is near chance, or far below what its trainer recorded."""
    for name, spec in run.sets.items():
        of_set = [(one, scores[name]) for one, scores in scored if name in scores]
        if spec.own_metrics:
            _say_all_same(run, name, of_set)
        found = [(one, score) for one, score in of_set if "accuracy" in score.metrics]
        if spec.labelled and found and not _say_near_chance(run, name, found):
            _say_far(run, name, found)


def say_not_a_number(run: Run, soup: Mapping[str, Score]) -> None:
    """Warn of each set where a score of the finished soup is NaN: nothing then says that the soup works."""
    for name, score in soup.items():
        lost = [metric for metric, number in score.metrics.items() if math.isnan(number.value)]
        if lost:
            why = "does the evaluation return NaN for these weights?" if run.sets[name].own_metrics else WHY_NAN
            run.warn(f"{name}: the soup's {', '.join(lost)} is not a number (NaN): do not use it unseen: {why}")


def say_unlike_training(run: Run, best: Scores, soup: Scores, other: OtherStatistics) -> None:
    """Warn if batch-norm statistics in the files do not fit the inputs of a set."""
    name = next((name for name in run.sets if other.is_unlike_training(name, best, soup)), None)
    if name is not None:
        run.warn(
            f"{name}: the best ingredient has accuracy {best[name]['accuracy'].value:.2%}, the soup with batch-norm "
            f"statistics of these inputs {other.scores[name]['accuracy'].value:.2%}: the inputs go in otherwise than "
            f"in training: look at {_transform(run, name) or 'how they are prepared'}; or, after few steps of "
            "training, the statistics are far off: --recalibrate"
        )


def _say_all_same(run: Run, name: str, found: Sequence[tuple[Checkpoint, Score]]) -> None:
    """Warn if an evaluation of the user's gives every checkpoint the same: it may always evaluate the same file."""
    metrics = [{metric: number.value for metric, number in score.metrics.items()} for _, score in found]
    same = len(found) >= FEWEST_SAME and metrics[0] and all(one == metrics[0] for one in metrics)
    if same and not _told_apart([score for _, score in found]):
        shown = ", ".join(f"{metric} {value:g}" for metric, value in sorted(metrics[0].items()))
        high = any(metric in SHARES and value > HIGH for metric, value in metrics[0].items())
        statistics = "" if high else _statistics([checkpoint for checkpoint, _ in found])
        run.warn(
            f"{name}: all {len(found)} checkpoints have {shown}: does the evaluation use the weights it is given?"
            f"{f' Or look at {statistics}' if statistics else ''}"
        )


def _told_apart(scores: Sequence[Score]) -> bool:
    """Whether outcomes of single examples differ between checkpoints, so that an equal number is a coincidence."""
    first = scores[0].outcomes
    shared = [(first[metric], one.outcomes[metric]) for one in scores for metric in first if metric in one.outcomes]
    return any(not torch.equal(own, other) for own, other in shared)


def _say_near_chance(run: Run, name: str, found: Sequence[tuple[Checkpoint, Score]]) -> bool:
    """Return whether even the best checkpoint scores no better than guessing, and warn if so."""
    classes = run.classes[name].count if name in run.classes else None
    best, score = max(found, key=lambda pair: pair[1].metrics["accuracy"].value)
    value, _, n = score.metrics["accuracy"]
    if classes is None or classes < 2 or not n or n < FEWEST:
        return False
    chance = 1 / classes
    if not value <= chance + 2 * math.sqrt(chance * (1 - chance) / n):
        return False
    run.warn(
        f"{name}: the best accuracy, {value:.2%} of {best.path}, is near chance ({chance:.2%} for {classes} classes): "
        f"{_look_at(run, name, _statistics([best]))}"
    )
    return True


def _say_far(run: Run, name: str, found: Sequence[tuple[Checkpoint, Score]]) -> None:
    for checkpoint, score in found:
        value, _, n = score.metrics["accuracy"]
        metric, said = _recorded_accuracy(checkpoint)
        if said is not None and n and said - value > max(FAR, ERRORS * math.sqrt(0.25 / n)):
            run.warn(
                f"{name}: {checkpoint.path} has accuracy {value:.2%}, its trainer recorded {metric} {said:.2%}: "
                f"{_look_at(run, name)}"
            )
            return


def _recorded_accuracy(checkpoint: Checkpoint) -> tuple[str, float | None]:
    """Return the trainer's accuracy as a share, and its name. Percentages are divided by 100."""
    numbers = {**highest_in_table(checkpoint.folder), **record_of(checkpoint).metrics}
    for metric, value in numbers.items():
        plain = metric.lower()
        for prefix in PREFIXES:
            plain = plain.removeprefix(prefix)
        if plain in ACCURACIES and 0 <= value <= 100:
            return metric, value / 100 if value > 1 else value
    return "", None


def _statistics(checkpoints: Sequence[Checkpoint]) -> str:
    """Return a hint on batch-norm statistics, which may be far off in means and after few steps, or "" without any."""
    if not has_statistics(checkpoints):
        return ""
    if any(one.members or one.origin.members for one in checkpoints):
        return "batch-norm statistics, which are averaged in a soup: made with --recalibrate it has its own"
    return "batch-norm statistics, far off after few steps of training: --recalibrate estimates those of soups again"


def _look_at(run: Run, name: str, statistics: str = "") -> str:
    """Return hints on what decides how examples reach the network and which class is which."""
    order = f"which class is which ({run.classes[name].by})" if name in run.classes else ""
    known = "".join(f"{one}, " for one in (_transform(run, name), order, statistics) if one)
    return f"look at {known}and whether the set and the network are those of these weights"


def _transform(run: Run, name: str) -> str:
    if name not in run.transforms:
        return ""
    return f"the transform ({run.transforms[name]}; size:, mean: and std: of the set change it)"
