"""Options of the commands that write a soup."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from soupcli.cli.help import one_of
from soupcli.cli.options.common import GatedOptions, ObjectiveFlag, Scores


@dataclass(frozen=True, kw_only=True)
class SoupOptions(GatedOptions):
    """For commands that write a soup."""

    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write the soup to (default: soup/).", envvar="SOUP_OUT"),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="Output dtype (default: the ingredients'); bf16 and the like are taken too.",
            envvar="SOUP_DTYPE",
            **one_of("float32", "bfloat16", "float16", "float64"),
        ),
    ] = None
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            "--max-shard-size", help="Split larger weights into shards (default: 5GB).", envvar="SOUP_MAX_SHARD_SIZE"
        ),
    ] = None
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="How the weights are written.",
            envvar="SOUP_FORMAT",
            **one_of("same", "safetensors", "torch"),
        ),
    ] = None
    card: Annotated[
        bool | None, typer.Option("--card/--no-card", help="Write a model card, README.md, beside the weights.")
    ] = None
    keep_state: Annotated[
        bool | None,
        typer.Option("--keep-state", help="Keep optimizer and schedulers in a soup of training checkpoints."),
    ] = None
    merge_adapters: Annotated[
        bool | None,
        typer.Option("--merge-adapters", help="Write a soup of adapters merged into its base: a full network."),
    ] = None
    adapter_rank: Annotated[
        int | None,
        typer.Option(
            "--adapter-rank",
            help="Rank of a soup of adapters (default: the sum of ranks, which is exact).",
            envvar="SOUP_ADAPTER_RANK",
        ),
    ] = None
    recalibrate: Annotated[
        bool,
        typer.Option("--recalibrate", help="Estimate batch-norm statistics again for each soup (needs --val)."),
    ] = False
    force: Annotated[bool, typer.Option("--force", help="Replace an existing soup.")] = False


@dataclass(frozen=True, kw_only=True)
class ScalableOptions(SoupOptions):
    """Options of commands whose soup may be scaled: `soup uniform`, and those of the others."""

    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            metavar="FROM:TO:STEP",
            help="Take the best point from --base (0) through the soup (1) on: 0:1.5:0.1.",
            envvar="SOUP_SCALE",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class GreedyOptions(ScalableOptions):
    """Options of `soup greedy`."""

    objective: ObjectiveFlag = None
    speculate: Annotated[
        int,
        typer.Option(
            "--speculate", metavar="N", help="With --jobs or torchrun: evaluate the next N candidates too.", min=0
        ),
    ] = 0
    min_delta: Annotated[
        str | None,
        typer.Option(
            "--min-delta",
            metavar="MARGIN",
            help="How much a candidate must raise the score: 0.001, or 0.1% (percentage points).",
            envvar="SOUP_MIN_DELTA",
        ),
    ] = None
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="How to search (default: forward).",
            envvar="SOUP_STRATEGY",
            **one_of("forward", "pruned", "replacement", "budgeted", "experts"),
        ),
    ] = None
    orders: Annotated[
        int | None,
        typer.Option(
            "--orders", help="Number of orders to try, the ranking first; the best soup is kept.", envvar="SOUP_ORDERS"
        ),
    ] = None
    budget: Annotated[
        int | None,
        typer.Option("--budget", help="Number of soups that --strategy budgeted evaluates.", envvar="SOUP_BUDGET"),
    ] = None
    windows: Annotated[
        str | None,
        typer.Option(
            "--windows", metavar="N,N...", help="Try the last N checkpoints of one run: 4,8,16.", envvar="SOUP_WINDOWS"
        ),
    ] = None
    window_decay: Annotated[
        str | None,
        typer.Option("--decay", metavar="SHAPE", help="With --windows: weights as of soup mix --decay."),
    ] = None
    early_stop: Annotated[
        bool | None,
        typer.Option(
            "--early-stop/--no-early-stop",
            help="Stop evaluating a candidate that can no longer pass (default); same outcome.",
            envvar="SOUP_EARLY_STOP",
        ),
    ] = None
    logits: Annotated[
        Path | None,
        typer.Option(
            "--logits",
            metavar="DIR",
            help="Report ensembles too, from logits in this folder; missing ones are computed.",
        ),
    ] = None
    scores: Scores = None
    with_uniform: Annotated[
        bool, typer.Option("--with-uniform", help="Report the uniform soup of all ingredients too.")
    ] = False

    @property
    def logit_folder(self) -> Path | None:
        """The folder of --logits."""
        return self.logits


@dataclass(frozen=True, kw_only=True)
class LearnedOptions(ScalableOptions):
    """Options of `soup learned`."""

    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="gradient|search|METRIC",
            help="Fit by gradient (default), or search for any metric. Another word is the recorded metric for --top.",
        ),
    ] = None
    budget: Annotated[
        int | None,
        typer.Option("--budget", help="Number of mixtures that --by search evaluates.", envvar="SOUP_BUDGET"),
    ] = None
    groups: Annotated[
        int | None,
        typer.Option("--groups", help="With --by search: groups of consecutive layers that share coefficients."),
    ] = None
    objective: ObjectiveFlag = None
    per: Annotated[
        str | None,
        typer.Option(
            "--per", help="What has a coefficient of its own.", envvar="SOUP_PER", **one_of("model", "layer", "tensor")
        ),
    ] = None
    constraint: Annotated[
        str | None,
        typer.Option(
            "--constraint",
            help="affine allows negative coefficients.",
            envvar="SOUP_CONSTRAINT",
            **one_of("simplex", "affine"),
        ),
    ] = None
    resident: Annotated[
        str | None,
        typer.Option(
            "--resident",
            help="Where to keep the ingredients.",
            envvar="SOUP_RESIDENT",
            **one_of("auto", "device", "host", "disk"),
        ),
    ] = None
    with_uniform: Annotated[
        bool, typer.Option("--with-uniform", help="Report the uniform soup of all ingredients too.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class MixOptions(SoupOptions):
    """Options of `soup mix`."""

    report: Annotated[Path | None, typer.Argument(help="Rebuild the soup of this soup.json.", metavar="REPORT")] = None
    base: Annotated[
        Path | None,
        typer.Option(
            "--base", help="Start of --alpha and --method stock; base model of LoRA adapters.", envvar="SOUP_BASE"
        ),
    ] = None
    weights_for: Annotated[
        list[str] | None,
        typer.Option(
            "--weights-for", metavar="PATTERN W,W...", help="Other weights for some tensors: 'blocks.*' 0.7,0.3."
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="Weights of --ckpts, in order: 0.7,0.3.", envvar="SOUP_WEIGHTS"),
    ] = None
    method: Annotated[
        str | None,
        typer.Option(
            "--method", help="stock is Model Stock, and needs --base.", envvar="SOUP_METHOD", **one_of("mean", "stock")
        ),
    ] = None
    alpha: Annotated[
        str | None,
        typer.Option(
            "--alpha", help="Interpolate from --base (0) to the mean (1): 0.5, or 0:1:0.1.", envvar="SOUP_ALPHA"
        ),
    ] = None
    decay: Annotated[
        str | None,
        typer.Option(
            "--decay",
            metavar="SHAPE",
            help="Weights that imitate a learning-rate decay: linear, 1-sqrt, cosine, ema:0.99, or a file.",
            envvar="SOUP_DECAY",
        ),
    ] = None
    any_weights: Annotated[
        bool | None,
        typer.Option("--any-weights", help="Allow weights that are negative or do not sum to 1."),
    ] = None
