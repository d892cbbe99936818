"""Evaluation with the live network: batches through it, what each example contributes kept, divided once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from soupcli.errors import ValidationError
from soupcli.network import Forward
from soupcli.progress import Progress, silent
from soupcli.validation.examples import Examples, batches
from soupcli.validation.metrics import METRICS, metric_named
from soupcli.validation.score import Score


def score(
    forward: Forward,
    examples: Examples,
    *,
    metrics: Sequence[str],
    device: torch.device,
    batch_size: int,
    task: str = "evaluating",
    progress: Progress = silent,
) -> Score:
    """All `metrics` of a network on `examples`; the first one selects.

    Raises ValidationError where labels and logits do not go together.
    """
    chosen = {name: metric_named(name) for name in metrics}
    n = len(examples.labels)
    outcomes: dict[str, Tensor] = {}
    done = 0
    with torch.inference_mode():
        for indices in batches(examples.order(), batch_size):
            labels_n = examples.labels[indices]
            logits_nk = forward(examples.batch(indices, device)).float().cpu()
            _check(logits_nk, labels_n)
            for name, metric in chosen.items():
                contribution = metric.contribution(logits_nk, labels_n)
                if name not in outcomes:
                    outcomes[name] = torch.zeros((n, *contribution.shape[1:]), dtype=contribution.dtype)
                outcomes[name][indices] = contribution
            done += len(indices)
            progress(task, done, n)
    return score_of(outcomes, metrics[0], examples=n)


def score_of(outcomes: Mapping[str, Tensor], selecting: str, *, examples: int) -> Score:
    """The score that the contributions of all examples add up to."""
    values = {name: METRICS[name].value(outcome) for name, outcome in outcomes.items()}
    return Score(values, selecting, METRICS[selecting].higher_is_better, examples, dict(outcomes))


def _check(logits_nk: Tensor, labels_n: Tensor) -> None:
    if logits_nk.dim() != 2 or len(logits_nk) != len(labels_n):
        raise ValidationError(
            f"the network gives {list(logits_nk.shape)} for {len(labels_n)} examples, logits [N, classes] are needed"
        )
    least, most = int(labels_n.min()), int(labels_n.max())
    if least < 0 or most >= logits_nk.shape[1]:
        raise ValidationError(
            f"labels reach from {least} to {most}, the network has {logits_nk.shape[1]} classes",
            hint="is this the validation set of these checkpoints? class_to_index or labels: map classes to logits",
        )
