"""Options that several commands share, written once: each command's options are a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from soupcli.cli.help import one_of, sets_of_recipe

DEVICES = ("auto", "cpu", "cuda", "mps")
WeightsName = Annotated[
    str | None, typer.Option("--weights-name", help="Name of the weights file, for folders with several.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Not needed any more: pickles are read without running them.")]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run code that a configuration or a report names: you wrote it.")
]
AllowClass = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-class", metavar="CLASS...", help="Not needed any more: classes in pickles are never imported."
    ),
]
RequireGain = Annotated[
    str | None,
    typer.Option(
        "--require-gain",
        metavar="[SET=]MARGIN",
        help="Exit 1 unless the soup beats the best ingredient by this much: 0.1% (of accuracy 0.1 is the same).",
        envvar="SOUP_REQUIRE_GAIN",
    ),
]
Scores = Annotated[
    Path | None,
    typer.Option(
        "--scores",
        metavar="FILE",
        help="Rank by the scores in this jsonl or csv file instead (model_name, then one key per set).",
    ),
]
ObjectiveFlag = Annotated[
    str | None,
    typer.Option(
        "--objective",
        metavar="mean|worst|SET=W,...",
        help="Select by several sets, each scaled to the best ingredient.",
        envvar="SOUP_OBJECTIVE",
    ),
]
OutputFormat = Annotated[
    str,
    typer.Option(
        "--output-format",
        metavar="text|github|junit|markdown",
        help="Print the result as text, GitHub annotations, JUnit XML or Markdown.",
    ),
]
ReportResult = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write the report to this file.")
]  # of commands whose result is a report
ReportFiles = Annotated[
    list[Path],
    typer.Argument(
        help="A soup.json or a --report. Others add scores and soups of the same ingredients.",
        metavar="REPORT",
    ),
]


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Where settings come from, and how much is said."""

    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", "-r", help="Recipe file (default: soup.yaml, if it exists).", envvar="SOUP_RECIPE"),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a recipe key, e.g. greedy.min_delta=0.001. Repeatable."),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only paths, one per line; no progress.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")] = False


@dataclass(frozen=True, kw_only=True)
class IngredientOptions(RecipeOptions):
    """Which checkpoints, and how they are evaluated."""

    ckpts: Annotated[
        list[str] | None,
        typer.Option(
            "--ckpts", metavar="PATH...", help="Checkpoint folders, files or globs; - reads paths from stdin."
        ),
    ] = None
    prefer: Annotated[
        str | None,
        typer.Option("--prefer", help="Take one checkpoint of each run that has several.", **one_of("best", "last")),
    ] = None
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", help="Of each run, take the last N checkpoints.", min=1)
    ] = None
    top: Annotated[
        int | None,
        typer.Option("--top", metavar="N", help="Take the N best by --by, a metric that the trainer recorded.", min=1),
    ] = None
    by: Annotated[
        list[str] | None,
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
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="run|PATTERN",
            help="Average the checkpoints of each run, or of each folder that fits, first: one ingredient each.",
        ),
    ] = None
    val: Annotated[
        list[str] | None,
        typer.Option(
            "--val",
            metavar="SET...",
            help="Sets of the recipe, or paths. The first selects, all are reported.",
            autocompletion=sets_of_recipe,
        ),
    ] = None
    holdout: Annotated[
        float | None,
        typer.Option(
            "--holdout",
            help="Fraction of the first set, or of all that select, used for reporting only.",
            envvar="SOUP_HOLDOUT",
        ),
    ] = None
    weights_name: WeightsName = None
    key: Annotated[
        str | None,
        typer.Option("--key", help="Which state dict of a training checkpoint, e.g. state_dict.", envvar="SOUP_KEY"),
    ] = None
    trust: Trust = False
    trust_code: TrustCode = False
    allow_class: AllowClass = None
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN...", help="Mix only tensors with matching names, e.g. 'blocks.*'."),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN...", help="Do not mix tensors with matching names, e.g. 'head.*'."),
    ] = None
    take: Annotated[
        list[str] | None,
        typer.Option(
            "--take", metavar="PATTERN...", help="Take tensors with such names from the best ingredient, unmixed."
        ),
    ] = None
    base: Annotated[
        Path | None,
        typer.Option("--base", help="Base model of LoRA adapters; source of excluded tensors.", envvar="SOUP_BASE"),
    ] = None
    device: Annotated[
        str | None,
        typer.Option("--device", help="Where to compute; also cuda:N.", envvar="SOUP_DEVICE", **one_of(*DEVICES)),
    ] = None
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", metavar="NAME", help="Metric that ranks and selects (default: accuracy).", envvar="SOUP_METRIC"
        ),
    ] = None
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Examples in one forward pass.", envvar="SOUP_BATCH_SIZE")
    ] = None
    workers: Annotated[
        int | None, typer.Option("--workers", help="Threads that decode inputs.", envvar="SOUP_WORKERS")
    ] = None
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", help="Run N commands of command: sets at once.", min=1)
    ] = 1
    flops: Annotated[
        bool | None,
        typer.Option(
            "--flops/--no-flops",
            help="Count the operations of a forward pass, and of an ensemble.",
            envvar="SOUP_FLOPS",
        ),
    ] = None
    amp: Annotated[
        str | None,
        typer.Option("--amp", help="Mixed precision for evaluation.", envvar="SOUP_AMP", **one_of("bf16", "fp16")),
    ] = None
    channels_last: Annotated[
        bool | None,
        typer.Option(
            "--channels-last/--no-channels-last",
            help="Use the channels-last memory layout for images.",
            envvar="SOUP_CHANNELS_LAST",
        ),
    ] = None
    compile: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile the network with torch.compile.", envvar="SOUP_COMPILE"),
    ] = None
    cache_inputs: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache", help="Keep decoded inputs for later runs (default).", envvar="SOUP_CACHE_INPUTS"
        ),
    ] = None
    report_to: Annotated[
        list[str] | None,
        typer.Option(
            "--report-to",
            metavar="NAME...",
            help="Report to trackio, wandb or mlflow too, while it runs and at the end.",
        ),
    ] = None
    relative: Annotated[
        bool, typer.Option("--relative", help="Write paths into the report relative to the working folder.")
    ] = False
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore scores kept by earlier runs.")] = False

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
        Path | None,
        typer.Option("--out", "-o", help="Ignored: this command writes no soup.", hidden=True, envvar="SOUP_OUT"),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="Ignored: this command writes no soup.", hidden=True, envvar="SOUP_DTYPE"),
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Ignored: this command writes no soup.", hidden=True)] = False
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
            help="Search: forward (default), pruned, replacement, budgeted or experts.",
            envvar="SOUP_STRATEGY",
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
class InitOptions:
    """Options of `soup init`."""

    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Recipe file to write.")] = Path("soup.yaml")
    force: Annotated[bool, typer.Option("--force", help="Replace an existing recipe.")] = False


@dataclass(frozen=True, kw_only=True)
class InspectOptions(ReportOptions):
    """Options of `soup inspect`."""

    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a problem is found.")] = False


@dataclass(frozen=True, kw_only=True)
class LandscapeOptions(ReportOptions):
    """Options of `soup landscape`."""

    grid: Annotated[int, typer.Option("--grid", min=2, help="Points along each axis (N x N evaluations).")] = 11
    margin: Annotated[
        float,
        typer.Option("--margin", min=0.0, help="How far the grid goes beyond the triangle, as a fraction of its size."),
    ] = 0.25
    report: ReportResult = Path("landscape.json")


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
            help="Weights that stand for a learning-rate decay: linear, 1-sqrt, cosine, ema:0.99, or a file.",
            envvar="SOUP_DECAY",
        ),
    ] = None
    any_weights: Annotated[
        bool | None,
        typer.Option("--any-weights", help="Allow weights that are negative or do not sum to 1."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PairsOptions(ReportOptions):
    """Options of `soup pairs`."""

    pairs: Annotated[
        int | None, typer.Option("--pairs", min=1, help="Number of pairs to draw (default: all, N(N-1)/2 evaluations).")
    ] = None
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0
    report: ReportResult = Path("pairs.json")


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Options of `soup plot`."""

    reports: ReportFiles
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output picture, .png or .svg; several pictures get names beside it.")
    ] = Path("plot.png")
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="NAME", help="Figure to draw (default: all that the reports allow). Repeatable."
        ),
    ] = None
    theme: Annotated[Literal["light", "dark"], typer.Option("--theme", help="Color theme.")] = "light"
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not list figures that cannot be drawn.")] = False


@dataclass(frozen=True, kw_only=True)
class RankOptions(ReportOptions):
    """Options of `soup rank`."""

    objective: ObjectiveFlag = None
    save_logits: Annotated[
        Path | None,
        typer.Option(
            "--save-logits", metavar="DIR", help="Write logits of every checkpoint here, for soup greedy --logits."
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
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .html, or .md for Markdown.")] = Path(
        "report.html"
    )


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of `soup verify`."""

    soup: Annotated[Path, typer.Argument(help="Folder of a soup, or its soup.json.", metavar="SOUP")]
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Mix it again in a temporary folder and compare the bytes.")
    ] = False
    weights_name: WeightsName = None
    trust: Trust = False
    trust_code: TrustCode = False
    allow_class: AllowClass = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only checks that failed.")] = False


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Options of `soup push`."""

    soup: Annotated[Path, typer.Argument(help="Folder of a soup, or its soup.json.", metavar="SOUP")]
    to: Annotated[str, typer.Argument(help="The model on the Hub: org/name.", metavar="ORG/NAME")]
    private: Annotated[bool, typer.Option("--private", help="Make a new model private.")] = False
    revision: Annotated[str | None, typer.Option("--revision", help="The branch; made if it is not there.")] = None
    force: Annotated[bool, typer.Option("--force", help="Also to a model that holds files of no soup.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the commit as one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the commit's address.")] = False


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Options of `soup cache`."""

    kinds: Annotated[
        list[str] | None,
        typer.Argument(help="Only these: scores, fits, inputs, contents, hashes or demo.", metavar="[KIND]..."),
    ] = None
    clear: Annotated[bool, typer.Option("--clear", help="Remove what is kept.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and sizes as one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the folder.")] = False


@dataclass(frozen=True, kw_only=True)
class SchemaOptions:
    """Options of `soup schema`."""

    of: Annotated[Literal["recipe", "report"], typer.Argument(help="What to describe.", metavar="recipe|report")]


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `soup demo`."""

    words: Annotated[
        list[str] | None,
        typer.Argument(help="digits (default), text or images, then the folder to write.", metavar="[KIND] [DIR]"),
    ] = None
    seed: Annotated[int, typer.Option("--seed", help="Seed of the data splits and of training.")] = 0
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the folder.")] = False
