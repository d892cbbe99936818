"""Evaluation with the live network: batches through it, what each example contributes kept, divided once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from soupcli.errors import NetworkError, SoupError, ValidationError
from soupcli.network import Batch, Forward
from soupcli.progress import Progress, silent
from soupcli.validation.examples import Examples, LabelKind, batches
from soupcli.validation.metrics import metric_named, metrics_for
from soupcli.validation.score import Score
from soupcli.validation.standard_error import with_error


def score(
    forward: Forward,
    examples: Examples,
    *,
    name: str,
    metrics: Sequence[str],
    device: torch.device,
    batch_size: int,
    progress: Progress = silent,
) -> Score:
    """Those of `metrics` that measure such labels, of a network on `examples`, the set `name`; the first one selects.

    Raises NetworkError where the network fails on a batch and ValidationError where labels and logits do not go
    together or the first metric is of other labels.
    """
    chosen = metrics_for(metrics, examples.kind, where=name)
    n = len(examples.labels)
    outcomes: dict[str, Tensor] = {}
    done = 0
    with torch.inference_mode():
        for indices in batches(examples.order(), batch_size):
            labels_n = examples.labels[indices]
            logits_nk = logits_of(forward, examples.batch(indices, device), labels_n, name, examples.kind)
            for metric, definition in chosen.items():
                contribution = definition.contribution(logits_nk, labels_n)
                if metric not in outcomes:
                    outcomes[metric] = torch.zeros((n, *contribution.shape[1:]), dtype=contribution.dtype)
                outcomes[metric][indices] = contribution
            done += len(indices)
            progress(f"evaluating on {name}", done, n)
    return score_of(outcomes, metrics[0], examples=n)


def score_of(outcomes: Mapping[str, Tensor], selecting: str, *, examples: int) -> Score:
    """The score that the contributions of all examples add up to."""
    values = {name: with_error(metric_named(name), outcome) for name, outcome in outcomes.items()}
    return Score(values, selecting, metric_named(selecting).higher_is_better, examples, dict(outcomes))


def logits_of(forward: Forward, inputs: Batch, labels_n: Tensor, name: str, kind: LabelKind = "classes") -> Tensor:
    """[N, K] on the CPU, float32 or wider, one row for each label and one column for each class.

    Labels that are numbers have one column; of tokens, [N, 2] is what `tokens.likelihood_of` gives.

    Raises what `score` raises, with the name of the set.
    """
    try:
        logits_nk = forward(inputs)
    except SoupError:
        raise
    except Exception as cause:
        shown = {k: list(v.shape) for k, v in inputs.items()} if isinstance(inputs, dict) else list(inputs.shape)
        first_line = next(iter(str(cause).strip().splitlines()), "")
        hint = "are these inputs what the network takes?"
        if isinstance(cause, torch.OutOfMemoryError):
            hint = "--batch-size: fewer examples at a time need less memory"
        raise NetworkError(
            f"{name}: the network fails on a batch {shown}: {type(cause).__name__}: {first_line}", hint=hint
        ) from cause
    if not isinstance(logits_nk, Tensor) or logits_nk.dim() != 2 or len(logits_nk) != len(labels_n):
        given = list(logits_nk.shape) if isinstance(logits_nk, Tensor) else f"a {type(logits_nk).__name__}"
        raise ValidationError(
            f"{name}: the network gives {given} for {len(labels_n)} examples, logits [N, classes] are needed",
            hint="model: in the recipe must build a classifier; a python set may do with the network as it likes",
        )
    _CHECKS[kind](logits_nk.shape[1], labels_n, name)
    return logits_nk.to("cpu", torch.promote_types(logits_nk.dtype, torch.float32))


def _check_classes(classes: int, labels: Tensor, name: str) -> None:
    least, most = int(labels.min()), int(labels.max())
    if least < (-1 if labels.dim() == 2 else 0) or most >= classes:
        raise ValidationError(
            f"{name}: labels reach from {least} to {most}, the network has {classes} classes",
            hint="is this the validation set of these checkpoints? class_to_index or labels: map classes to logits",
        )


def _check_numbers(columns: int, labels: Tensor, name: str) -> None:
    if columns != 1:
        raise ValidationError(
            f"{name}: labels are numbers, and the network gives {columns} for each example",
            hint="a network that predicts a number has one logit: num_labels=1",
        )


def _check_tokens(columns: int, labels: Tensor, name: str) -> None:
    assert columns == 2


_CHECKS: dict[LabelKind, Callable[[int, Tensor, str], None]] = {
    "classes": _check_classes,
    "several": _check_classes,
    "numbers": _check_numbers,
    "tokens": _check_tokens,
}
