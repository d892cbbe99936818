"""The keywords of soupcli's functions, for type checkers and editors.

docs/keywords.py writes this file: make docs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import torch
    from torch import nn

Words = str | Path | Iterable[str | Path]


class OwnKeywords(TypedDict, total=False):
    """What no command has: functions of the caller, and what is said of them."""

    evaluate: Callable[[Any], Any]
    model: Callable[[], nn.Module]
    higher_is_better: bool | None
    score_key: str | None


class SharedKeywords(OwnKeywords, total=False):
    """What all commands that read checkpoints have."""

    recipe: str | Path | None
    set_: Words | None
    ckpts: Words | None
    prefer: Literal["best", "last"] | None
    last: int | None
    top: int | None
    by: Words | None
    between: int | Sequence[int] | None
    every: int | None
    group_by: str | None
    val: Words | None
    holdout: float | None
    weights_name: str | None
    key: str | None
    trust: bool
    trust_code: bool
    allow_class: Words | None
    include: Words | None
    exclude: Words | None
    take: Words | None
    base: str | Path | None
    device: str | torch.device | None
    metric: str | None
    batch_size: int | None
    workers: int | None
    jobs: int
    flops: bool | None
    amp: Literal["bf16", "fp16"] | None
    channels_last: bool | None
    compile: bool | None
    cache_inputs: bool | None
    report_to: Words | None
    fresh: bool


class RankKeywords(SharedKeywords, total=False):
    """The options of `soup rank`."""

    report: str | Path | None
    objective: str | None
    save_logits: str | Path | None
    scores: str | Path | None


class UniformKeywords(SharedKeywords, total=False):
    """The options of `soup uniform`."""

    require_gain: str | float | None
    out: str | Path | None
    dtype: str | torch.dtype | None
    max_shard_size: str | int | None
    format: Literal["same", "safetensors", "torch"] | None
    card: bool | None
    keep_state: bool | None
    merge_adapters: bool | None
    adapter_rank: int | None
    recalibrate: bool
    force: bool


class GreedyKeywords(SharedKeywords, total=False):
    """The options of `soup greedy`."""

    require_gain: str | float | None
    out: str | Path | None
    dtype: str | torch.dtype | None
    max_shard_size: str | int | None
    format: Literal["same", "safetensors", "torch"] | None
    card: bool | None
    keep_state: bool | None
    merge_adapters: bool | None
    adapter_rank: int | None
    recalibrate: bool
    force: bool
    scale: str | None
    objective: str | None
    speculate: int
    min_delta: str | float | None
    strategy: Literal["forward", "pruned", "replacement", "budgeted", "experts"] | None
    orders: int | None
    budget: int | None
    windows: str | int | Sequence[int] | None
    window_decay: str | None
    early_stop: bool | None
    logits: str | Path | None
    scores: str | Path | None
    with_uniform: bool


class LearnedKeywords(SharedKeywords, total=False):
    """The options of `soup learned`."""

    require_gain: str | float | None
    out: str | Path | None
    dtype: str | torch.dtype | None
    max_shard_size: str | int | None
    format: Literal["same", "safetensors", "torch"] | None
    card: bool | None
    keep_state: bool | None
    merge_adapters: bool | None
    adapter_rank: int | None
    recalibrate: bool
    force: bool
    scale: str | None
    budget: int | None
    groups: int | None
    objective: str | None
    per: Literal["model", "layer", "tensor"] | None
    constraint: Literal["simplex", "affine"] | None
    resident: Literal["auto", "device", "host", "disk"] | None
    with_uniform: bool


class EvaluateKeywords(SharedKeywords, total=False):
    """The options of `soup eval`."""

    report: str | Path | None
    require_gain: str | float | None


class InspectKeywords(SharedKeywords, total=False):
    """The options of `soup inspect`."""

    report: str | Path | None
    strict: bool


class MixKeywords(SharedKeywords, total=False):
    """The options of `soup mix`."""

    require_gain: str | float | None
    out: str | Path | None
    dtype: str | torch.dtype | None
    max_shard_size: str | int | None
    format: Literal["same", "safetensors", "torch"] | None
    card: bool | None
    keep_state: bool | None
    merge_adapters: bool | None
    adapter_rank: int | None
    recalibrate: bool
    force: bool
    weights_for: Mapping[str, str | Sequence[float]] | Sequence[str] | None
    weights: str | Sequence[float] | None
    method: Literal["mean", "stock"] | None
    alpha: str | float | Sequence[float] | None
    decay: str | None
    any_weights: bool | None


class VerifyKeywords(TypedDict, total=False):
    """The options of `soup verify`."""

    rebuild: bool
    weights_name: str | None
    trust: bool
    trust_code: bool
    allow_class: Words | None
