"""Options that several commands share, written once: each command's options are a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from soupcli.cli.help import names_in, one_of, sets_of_recipe

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
    """The recipe, settings laid over it, and how much is printed."""

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
        typer.Option(
            "--key",
            help="Which state dict of a training checkpoint, e.g. state_dict; '*': all of them, as one network.",
            envvar="SOUP_KEY",
        ),
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
            "--metric",
            metavar="NAME",
            help="Metric that ranks and selects (default: accuracy).",
            envvar="SOUP_METRIC",
            autocompletion=names_in("soupcli.metrics.table:METRICS"),
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
            autocompletion=names_in("soupcli.output.trackers.table:TRACKERS"),
        ),
    ] = None
    relative: Annotated[
        bool, typer.Option("--relative", help="Write paths into the report relative to the working folder.")
    ] = False
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore scores kept by earlier runs.")] = False

    @property
    def logit_folder(self) -> Path | None:
        """The folder for every network's logits, or None if the command keeps no logits."""
        return None


@dataclass(frozen=True, kw_only=True)
class GatedOptions(IngredientOptions):
    """Options of commands that check gates."""

    require_gain: RequireGain = None
    output_format: OutputFormat = "text"


@dataclass(frozen=True, kw_only=True)
class ReportOptions(IngredientOptions):
    """For commands that measure and write no soup. They ignore options of a soup, so one line of flags fits all."""

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
