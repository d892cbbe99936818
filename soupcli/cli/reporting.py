"""Scores, ingredients and memory as they stand in the report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from soupcli.checkpoints.checkpoint import Checkpoint, total_bytes
from soupcli.checkpoints.content_hash import ContentHashes
from soupcli.report.scores import Ingredient, MetricScore
from soupcli.validation.score import Score


def report_scores(scores: Mapping[str, Score]) -> dict[str, dict[str, MetricScore]]:
    """Scores by set as they stand in the report."""
    return {
        name: {metric: MetricScore(value=v.value, stderr=v.stderr, n=v.n) for metric, v in score.metrics.items()}
        for name, score in scores.items()
    }


def report_ingredient(checkpoint: Checkpoint, scores: Mapping[str, Score], hashes: ContentHashes) -> Ingredient:
    """A checkpoint with its scores."""
    return Ingredient(
        path=str(checkpoint.path),
        hash=hashes.of(checkpoint),
        bytes=total_bytes(checkpoint),
        scores=report_scores(scores),
        format=checkpoint.origin.format,
        key=checkpoint.origin.key,
        trainer_metrics=dict(checkpoint.origin.metrics),
    )


def peak_bytes(device: torch.device) -> dict[str, int]:
    """The most memory that this process held, on the host and on a CUDA device."""
    peaks = {"host": _peak_of_host()}
    if device.type == "cuda":
        peaks["device"] = torch.cuda.max_memory_allocated(device)
    return peaks


def _peak_of_host() -> int:
    """Of this program alone where the system tells; getrusage counts what started it too (Linux keeps it over exec)."""
    import resource

    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
