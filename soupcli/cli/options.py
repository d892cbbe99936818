"""Options that several commands share, written once: each command's options are a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

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
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", help="Of each run, take the last N checkpoints.", min=1)
    ] = None
    top: Annotated[
        int | None,
        typer.Option("--top", metavar="N", help="Take the N best by --by, a metric that the trainer recorded.", min=1),
    ] = None
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="METRIC", help="Recorded metric for --top; --by=-NAME if lower is better."),
    ] = None
    between: Annotated[
        list[int] | None,
        typer.Option("--between", metavar="STEP STEP", help="Take the checkpoints from one step to another."),
    ] = None
    every: Annotated[
        int | None,
        typer.Option("--every", metavar="N", help="Of each run, take every Nth checkpoint, back from the last.", min=1),
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

    @property
    def logit_folder(self) -> Path | None:
        """The folder that keeps every network's logits; None if the command keeps none."""
        return None


@dataclass(frozen=True, kw_only=True)
class GatedOptions(IngredientOptions):
    """Options of commands that check gates."""

    require_gain: RequireGain = None
    output_format: OutputFormat = "text"


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
class EvalOptions(GatedOptions, ReportOptions):
    """Options of `soup eval`."""


@dataclass(frozen=True, kw_only=True)
class SoupOptions(GatedOptions):
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
    force: Annotated[bool, typer.Option("--force", help="Replace the soup that is there.")] = False


@dataclass(frozen=True, kw_only=True)
class GreedyOptions(SoupOptions):
    """Options of `soup greedy`."""

    min_delta: Annotated[
        float | None,
        typer.Option("--min-delta", help="Margin by which a candidate must raise the score.", envvar="SOUP_MIN_DELTA"),
    ] = None
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", help="forward, pruned, replacement or budgeted.", envvar="SOUP_STRATEGY"),
    ] = None
    orders: Annotated[
        int | None,
        typer.Option(
            "--orders", help="Orders to try: the ranking and random ones; the best soup stays.", envvar="SOUP_ORDERS"
        ),
    ] = None
    budget: Annotated[
        int | None,
        typer.Option("--budget", help="Soups that --strategy budgeted evaluates.", envvar="SOUP_BUDGET"),
    ] = None
    early_stop: Annotated[
        bool | None,
        typer.Option(
            "--early-stop/--no-early-stop",
            help="Give up candidates that are out of reach (default), or evaluate every one to the end.",
            envvar="SOUP_EARLY_STOP",
        ),
    ] = None
    logits: Annotated[
        Path | None,
        typer.Option(
            "--logits", metavar="DIR", help="Ensembles beside the soup, from logits here; those missing are made."
        ),
    ] = None
    scores: Scores = None
    with_uniform: Annotated[
        bool, typer.Option("--with-uniform", help="Report the mean of all ingredients beside the soup.")
    ] = False

    @property
    def logit_folder(self) -> Path | None:
        """The folder of --logits."""
        return self.logits


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """Options of `soup init`."""

    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The recipe to write.")] = Path("soup.yaml")
    force: Annotated[bool, typer.Option("--force", help="Replace the recipe that is there.")] = False


@dataclass(frozen=True, kw_only=True)
class InspectOptions(ReportOptions):
    """Options of `soup inspect`."""

    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where a reason not to mix was found.")] = False


@dataclass(frozen=True, kw_only=True)
class LandscapeOptions(ReportOptions):
    """Options of `soup landscape`."""

    grid: Annotated[int, typer.Option("--grid", min=2, help="Points along each axis; N takes N x N evaluations.")] = 11
    margin: Annotated[
        float, typer.Option("--margin", min=0.0, help="How far beyond the triangle, as a share of its extent.")
    ] = 0.25
    report: ReportResult = Path("landscape.json")


@dataclass(frozen=True, kw_only=True)
class LearnedOptions(SoupOptions):
    """Options of `soup learned`."""

    per: Annotated[
        str | None, typer.Option("--per", help="One coefficient per model, layer or tensor.", envvar="SOUP_PER")
    ] = None
    constraint: Annotated[
        str | None,
        typer.Option("--constraint", help="simplex, or affine: negative coefficients too.", envvar="SOUP_CONSTRAINT"),
    ] = None
    resident: Annotated[
        str | None,
        typer.Option("--resident", help="Where ingredients live: device, host, disk or auto.", envvar="SOUP_RESIDENT"),
    ] = None
    with_uniform: Annotated[
        bool, typer.Option("--with-uniform", help="Report the mean of all ingredients beside the soup.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class MixOptions(SoupOptions):
    """Options of `soup mix`."""

    report: Annotated[
        Path | None, typer.Argument(help="The soup.json of a soup that is written again.", metavar="REPORT")
    ] = None
    base: Annotated[
        Path | None,
        typer.Option(
            "--base", help="Start of --alpha and --method stock; network that adapters change.", envvar="SOUP_BASE"
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="The weights of --ckpts, in order: 0.7,0.3.", envvar="SOUP_WEIGHTS"),
    ] = None
    method: Annotated[
        str | None, typer.Option("--method", help="mean, or stock (Model Stock), with --base.", envvar="SOUP_METHOD")
    ] = None
    alpha: Annotated[
        str | None,
        typer.Option("--alpha", help="From --base (0) to the mean (1): 0.5, or 0:1:0.1.", envvar="SOUP_ALPHA"),
    ] = None
    any_weights: Annotated[
        bool | None,
        typer.Option("--any-weights", help="Take weights that are negative or do not sum to 1."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PairsOptions(ReportOptions):
    """Options of `soup pairs`."""

    pairs: Annotated[
        int | None, typer.Option("--pairs", min=1, help="Draw so many pairs (default: all, N(N-1)/2 evaluations).")
    ] = None
    seed: Annotated[int, typer.Option("--seed", min=0, help="What draws them.")] = 0
    report: ReportResult = Path("pairs.json")


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Options of `soup plot`."""

    reports: ReportFiles
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The picture, .png or .svg; of several, a name for each beside it.")
    ] = Path("plot.png")
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="NAME", help="Figure to draw (default: all that can be). Repeatable."),
    ] = None
    theme: Annotated[Literal["light", "dark"], typer.Option("--theme", help="The ground to draw on.")] = "light"
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing of figures that cannot be drawn.")] = False


@dataclass(frozen=True, kw_only=True)
class RankOptions(ReportOptions):
    """Options of `soup rank`."""

    save_logits: Annotated[
        Path | None,
        typer.Option(
            "--save-logits", metavar="DIR", help="Keep every network's logits here, for soup greedy --logits."
        ),
    ] = None
    scores: Scores = None

    @property
    def logit_folder(self) -> Path | None:
        """The folder of --save-logits."""
        return self.save_logits


@dataclass(frozen=True, kw_only=True)
class ReportPageOptions:
    """Options of `soup report`."""

    reports: ReportFiles
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html")


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of `soup verify`."""

    soup: Annotated[Path, typer.Argument(help="The folder of a soup, or its soup.json.", metavar="SOUP")]
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Mix it again, aside, and compare the bytes.")] = False
    weights_name: WeightsName = None
    trust: Trust = False
    allow_class: AllowClass = None
    as_json: Annotated[bool, typer.Option("--json", help="Print what was checked as one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print what is not as reported alone.")] = False


@dataclass(frozen=True, kw_only=True)
class SchemaOptions:
    """Options of `soup schema`."""

    of: Annotated[Literal["recipe", "report"], typer.Argument(help="What to describe.", metavar="recipe|report")]


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `soup demo`."""

    words: Annotated[
        list[str] | None,
        typer.Argument(help="digits (default), text or images; then the folder.", metavar="[KIND] [DIR]"),
    ] = None
    seed: Annotated[int, typer.Option("--seed", help="Seed of data splits, start and draws.")] = 0
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the folder alone.")] = False
