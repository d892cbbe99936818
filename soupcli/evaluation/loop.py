"""Evaluates the live network: collects what each example contributes to a metric, and divides once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.datasets.examples import Examples, hardest_batches_first
from soupcli.datasets.load_context import EMBEDS
from soupcli.errors import NetworkError, SoupError, ValidationError
from soupcli.evaluation.batches import BatchSize, is_out_of_memory
from soupcli.evaluation.hardest_first import distance_of, levels_of
from soupcli.evaluation.score import Score, Stopped, goodness_of
from soupcli.late import torch
from soupcli.metrics.standard_error import with_error
from soupcli.metrics.table import metric_named, metrics_for
from soupcli.progress import Progress, silent
from soupcli.wording import with_article

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.metrics.metric import LabelKind, Metric
    from soupcli.networks.network import Batch, Forward

DISTANCE = "distance"  # of a network from an example, kept beside what the example contributes to the metrics
LOOKS = 64  # in a set, at least, where an evaluation may be given up: few, large batches would run past the end
LEAST = 8  # examples in a batch, however small the set is


def score(
    forward: Forward,
    examples: Examples,
    *,
    name: str,
    metrics: Sequence[str],
    device: torch.device,
    batch_size: BatchSize,
    at_least: float | None = None,
    give_up: bool = True,
    difficulty: Tensor | None = None,
    keep: Callable[[Tensor, Tensor], None] | None = None,
    progress: Progress = silent,
) -> Score:
    """Evaluate a network on `examples`, the set `name`. The first of `metrics` selects.

    Metrics that do not apply to these labels are skipped. If only a goodness of `at_least` matters, the hardest
    examples by `difficulty` come first, and `give_up` ends the evaluation once that is out of reach. The outcome of an
    example does not depend on `give_up`. Metrics that count take smaller batches. All others take those of a full
    evaluation, so that equal networks score the same to the last bit. `keep` gets indices and logits of every batch.
    Raises NetworkError if the network fails on a batch. Raises ValidationError if labels and logits do not go together
    or the first metric is of other labels.
    """
    chosen = metrics_for(metrics, examples.kind, where=name)
    n, kind = len(examples.labels), examples.kind
    order, at_most = examples.order(), None
    if at_least is not None:
        order, at_most = _hardest_first(examples, difficulty, batch_size, counts=chosen[metrics[0]].counts)
    watch = _Watch(chosen[metrics[0]], examples.labels[order], at_least if give_up else None)
    together = processes.count() > 1
    where = device if device.type == "cuda" and not together else torch.device("cpu")
    parts: dict[str, list[Tensor]] = {metric: [] for metric in (*chosen, DISTANCE)}
    done = 0

    def logits(indices: Tensor) -> Tensor:
        inputs, labels = examples.batch(indices, device), examples.labels[indices]
        return checked_logits(forward, inputs, labels, name, kind).to(where)

    with torch.inference_mode():
        through = batch_size.shared_out if together else batch_size.through
        for indices, logits_nk in through(order, logits, at_most=at_most, alike=examples.alike):
            labels = examples.labels[indices].to(where)
            parts[DISTANCE].append(distance_of(logits_nk, labels, kind))
            if keep is not None:
                keep(indices, logits_nk)
            for metric, definition in chosen.items():
                parts[metric].append(definition.contribution(logits_nk, labels))
            done += len(indices)
            if (bound := watch.out_of_reach(parts[metrics[0]], done)) is not None:
                progress(f"evaluating on {name}", n, n)
                return watch.stopped(metrics[0], done, bound)
            progress(f"evaluating on {name}", done, n)
    outcomes = {metric: _in_order(of_batches, order) for metric, of_batches in parts.items()}
    levels = levels_of(outcomes.pop(DISTANCE), kind)
    return score_of(outcomes, metrics[0], examples=n)._replace(difficulty=levels)


def _hardest_first(
    examples: Examples, difficulty: Tensor | None, batch_size: BatchSize, *, counts: bool
) -> tuple[Tensor, int | None]:
    """Return the order of visits and the largest batch, for a metric that `counts` or does not."""
    if counts:
        return examples.order(difficulty), max(LEAST, -(-len(examples.labels) // LOOKS))
    if difficulty is None or examples.alike:
        return examples.order(difficulty), None
    order = examples.order()
    return hardest_batches_first(order, batch_size.even(len(order)), difficulty), None


class _Watch:
    """Checks, at most LOOKS times in an evaluation, whether the selecting metric can still be good enough."""

    def __init__(self, metric: Metric, labels: Tensor, at_least: float | None) -> None:
        self.metric = metric
        self._labels = labels  # in the order of the visits
        self._at_least = at_least if metric.reachable is not None else None
        self._next = 0

    def out_of_reach(self, parts: list[Tensor], done: int) -> float | None:
        """Return the best value still within reach if it is not enough, else None."""
        n, reachable = len(self._labels), self.metric.reachable
        if self._at_least is None or reachable is None or done < self._next or done == n:
            return None
        self._next = done + n // LOOKS
        parts[:] = [torch.cat(parts)]
        bound = reachable(parts[0].cpu(), self._labels[done:])
        enough = goodness_of(bound, higher_is_better=self.metric.higher_is_better) >= self._at_least
        return None if enough or math.isnan(bound) else bound

    def stopped(self, selecting: str, seen: int, bound: float) -> Score:
        """Return the score of a stopped evaluation."""
        stopped = Stopped(seen, len(self._labels), bound)
        return Score({}, selecting, self.metric.higher_is_better, seen, {}, stopped=stopped)


def _in_order(parts: list[Tensor], order: Tensor) -> Tensor:
    """Return the contributions of all batches on the CPU, in the order of the set."""
    visited = torch.cat(parts).cpu()
    found = torch.empty_like(visited)
    found[order] = visited
    return found


def score_of(outcomes: Mapping[str, Tensor], selecting: str, *, examples: int) -> Score:
    """Return the score of the contributions of all examples."""
    values = {name: with_error(metric_named(name), outcome) for name, outcome in outcomes.items()}
    return Score(values, selecting, metric_named(selecting).higher_is_better, examples, dict(outcomes))


def logits_of(forward: Forward, inputs: Batch, labels_n: Tensor, name: str, kind: LabelKind = "classes") -> Tensor:
    """Return `checked_logits` on the CPU."""
    return checked_logits(forward, inputs, labels_n, name, kind).to("cpu")


BUILD_CLASSIFIER = "model: in the recipe must build a classifier; a python set may do with the network as it likes"


def checked_logits(forward: Forward, inputs: Batch, labels: Tensor, name: str, kind: LabelKind) -> Tensor:
    """Return logits [N, K], float32 or wider, one row for each label and one column for each class.

    Labels that are numbers have one column. For tokens, [N, 2] is the result of `tokens.likelihood_of`.

    Raises what `score` raises, with the name of the set.
    """
    try:
        logits_nk: object = forward(inputs)  # of code that may not keep its types
    except SoupError:
        raise
    except Exception as cause:
        shown = {k: list(v.shape) for k, v in inputs.items()} if isinstance(inputs, dict) else list(inputs.shape)
        first_line = next(iter(str(cause).strip().splitlines()), "")
        hint = "are these inputs what the network takes?"
        if isinstance(inputs, dict) and "input_ids" in inputs:
            longest = inputs["input_ids"].shape[-1]
            hint += f" max_length: N in the recipe cuts texts to N tokens, these have {longest}"
        if is_out_of_memory(cause):
            hint = "--batch-size: fewer examples at a time need less memory"
        raise NetworkError(
            f"{name}: the network fails on a batch {shown}: {type(cause).__name__}: {first_line}", hint=hint
        ) from cause
    if not isinstance(logits_nk, torch.Tensor) or logits_nk.dim() != 2 or len(logits_nk) != len(labels):
        given = list(logits_nk.shape) if isinstance(logits_nk, torch.Tensor) else with_article(logits_nk)
        raise ValidationError(
            f"{name}: the network gives {given} for {len(labels)} examples, logits [N, classes] are needed",
            hint=EMBEDS if hasattr(logits_nk, "last_hidden_state") else BUILD_CLASSIFIER,
        )
    _CHECKS[kind](logits_nk.shape[1], labels, name)
    return logits_nk.to(torch.promote_types(logits_nk.dtype, torch.float32))


def _check_classes(classes: int, labels: Tensor, name: str) -> None:
    least, most = int(labels.min()), int(labels.max())
    if least < (-1 if labels.dim() == 2 else 0) or most >= classes:
        raise ValidationError(
            f"{name}: labels reach from {least} to {most}, the network has {classes} classes",
            hint="is this the validation set of these checkpoints? class_to_index or labels: map classes to logits"
            if classes > 1
            else "a network of one logit takes columns of 0 and 1: label: [label] in the set lists the one that it is",
        )


def _check_multilabel(classes: int, labels: Tensor, name: str) -> None:
    if labels.shape[1] != classes:
        raise ValidationError(
            f"{name}: labels are rows of {labels.shape[1]} classes, the network has {classes}",
            hint="a row has a 0 or a 1 for each logit, in the order of the logits",
        )


def _check_numbers(columns: int, _labels: Tensor, name: str) -> None:
    if columns != 1:
        raise ValidationError(
            f"{name}: labels are numbers, and the network gives {columns} for each example",
            hint="a network that predicts a number has one logit: num_labels=1",
        )


def _check_tokens(columns: int, _labels: Tensor, _name: str) -> None:
    assert columns == 2


_CHECKS: dict[LabelKind, Callable[[int, Tensor, str], None]] = {
    "classes": _check_classes,
    "several": _check_classes,
    "multilabel": _check_multilabel,
    "numbers": _check_numbers,
    "tokens": _check_tokens,
}
