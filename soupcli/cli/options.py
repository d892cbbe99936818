"""Options that several commands share, written once: each command's options are a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

WeightsName = Annotated[
    str | None, typer.Option("--weights-name", help="Weights file to take where a folder holds several.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Open the pickled metadata of torch distributed checkpoints.")]
AllowClass = Annotated[
    list[str] | None,
    typer.Option("--allow-class", metavar="CLASS...", help="Classes in checkpoints that may be passed over."),
]
RequireGain = Annotated[
    str | None,
    typer.Option(
        "--require-gain",
        metavar="[SET=]MARGIN",
        help="Exit 1 unless the soup is so much better than the best ingredient (accuracy: in points of a per cent).",
        envvar="SOUP_REQUIRE_GAIN",
    ),
]
Scores = Annotated[
    Path | None,
    typer.Option("--scores", metavar="FILE", help="Rank by scores in this jsonl file (model_name, one key a set)."),
]
OutputFormat = Annotated[
    str,
    typer.Option(
        "--output-format", metavar="text|github|junit", help="The result as text, as annotations, or as JUnit XML."
    ),
]
ReportResult = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Where the report is written.")
]  # of commands whose result is a report
ReportFiles = Annotated[
    list[Path],
    typer.Argument(
        help="A soup.json or a --report; further ones add their scores and soups to the same ingredients.",
        metavar="REPORT",
    ),
]


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Where settings come from, and how much is said."""

    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", "-r", help="Recipe file (default: soup.yaml, if there).", envvar="SOUP_RECIPE"),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a recipe key, e.g. greedy.min_delta=0.001. Repeatable."),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print paths alone, one a line; no progress.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; load no tensor.")] = False


@dataclass(frozen=True, kw_only=True)
class IngredientOptions(RecipeOptions):
    """Which checkpoints, and how they are evaluated."""

    ckpts: Annotated[
        list[str] | None,
        typer.Option("--ckpts", metavar="PATH...", help="Checkpoint folders, files, globs; - reads paths from stdin."),
    ] = None
    val: Annotated[
        list[str] | None,
        typer.Option("--val", metavar="SET...", help="Sets of the recipe, or paths; the first one selects."),
    ] = None
    holdout: Annotated[
        float | None,
        typer.Option("--holdout", help="Share of the first set to report on, not to select by.", envvar="SOUP_HOLDOUT"),
    ] = None
    weights_name: WeightsName = None
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="State dict to take from a training checkpoint, e.g. state_dict.", envvar="SOUP_KEY"
        ),
    ] = None
    trust: Trust = False
    allow_class: AllowClass = None
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN...", help="Mix only the tensors with such names, e.g. 'blocks.*'."),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN...", help="Do not mix tensors with such names, e.g. 'head.*'."),
    ] = None
    base: Annotated[
        Path | None,
        typer.Option(
            "--base", help="Network that adapters change, or that gives what is not mixed.", envvar="SOUP_BASE"
        ),
    ] = None
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", envvar="SOUP_DEVICE")
    ] = None
    metric: Annotated[
        str | None, typer.Option("--metric", help="Metric that ranks and selects.", envvar="SOUP_METRIC")
    ] = None
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Examples in one forward pass.", envvar="SOUP_BATCH_SIZE")
    ] = None
    workers: Annotated[
        int | None, typer.Option("--workers", help="Threads that decode inputs.", envvar="SOUP_WORKERS")
    ] = None
    flops: Annotated[
        bool | None,
        typer.Option(
            "--flops/--no-flops", help="Count a forward pass's operations, and an ensemble's.", envvar="SOUP_FLOPS"
        ),
    ] = None
    amp: Annotated[
        str | None, typer.Option("--amp", help="Evaluate in mixed precision: bf16 or fp16.", envvar="SOUP_AMP")
    ] = None
    channels_last: Annotated[
        bool | None,
        typer.Option(
            "--channels-last/--no-channels-last",
            help="Evaluate pictures with their channels last.",
            envvar="SOUP_CHANNELS_LAST",
        ),
    ] = None
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile", help="Compile the network (torch.compile) to evaluate it.", envvar="SOUP_COMPILE"
        ),
    ] = None
    cache_inputs: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache", help="Keep decoded inputs for the next run (default).", envvar="SOUP_CACHE_INPUTS"
        ),
    ] = None
    relative: Annotated[
        bool, typer.Option("--relative", help="Write paths into the report as seen from the working folder.")
    ] = False
    fresh: Annotated[bool, typer.Option("--fresh", help="Evaluate again what earlier runs have evaluated.")] = False


@dataclass(frozen=True, kw_only=True)
class ReportOptions(IngredientOptions):
    """For commands that measure and write no soup; options of one are taken, so that all commands share a line."""

    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Shared; no soup is written here.", envvar="SOUP_OUT")
    ] = None
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Shared; no soup is written here.", envvar="SOUP_DTYPE")
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Shared; a report is replaced without it.")] = False
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write the report to this file.")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ReportOptions):
    """Options of `soup eval`."""

    require_gain: RequireGain = None
    output_format: OutputFormat = "text"


@dataclass(frozen=True, kw_only=True)
class SoupOptions(IngredientOptions):
    """For commands that write a soup."""

    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the soup (default: soup/).", envvar="SOUP_OUT")
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="float32, bfloat16, float16 or float64; default: as it is.", envvar="SOUP_DTYPE"),
    ] = None
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", help="Larger weights become shards (5GB).", envvar="SOUP_MAX_SHARD_SIZE"),
    ] = None
    adapter_rank: Annotated[
        int | None,
        typer.Option(
            "--adapter-rank", help="Rank of a soup of adapters (default: exact, the sum).", envvar="SOUP_ADAPTER_RANK"
        ),
    ] = None
    require_gain: RequireGain = None
    output_format: OutputFormat = "text"
    force: Annotated[bool, typer.Option("--force", help="Replace the soup that is there.")] = False
