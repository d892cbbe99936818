"""Every command's flags, frozen: none appears, changes its variable or goes by accident."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main

from soupcli.cli.app import COMMANDS, app_of

RECIPE = ["--recipe -r $SOUP_RECIPE", "--set...", "--json", "--quiet -q", "--dry-run"]
INGREDIENTS = [
    *RECIPE,
    "--ckpts...",
    "--prefer",
    "--last",
    "--top",
    "--by...",
    "--between...",
    "--every",
    "--group-by",
    "--val...",
    "--holdout $SOUP_HOLDOUT",
    "--weights-name",
    "--key $SOUP_KEY",
    "--trust",
    "--trust-code",
    "--allow-class...",
    "--include...",
    "--exclude...",
    "--take...",
    "--base $SOUP_BASE",
    "--device $SOUP_DEVICE",
    "--metric $SOUP_METRIC",
    "--batch-size $SOUP_BATCH_SIZE",
    "--workers $SOUP_WORKERS",
    "--jobs",
    "--flops --no-flops $SOUP_FLOPS",
    "--amp $SOUP_AMP",
    "--channels-last --no-channels-last $SOUP_CHANNELS_LAST",
    "--compile --no-compile $SOUP_COMPILE",
    "--cache --no-cache $SOUP_CACHE_INPUTS",
    "--fresh",
    "--report-to...",
    "--relative",
]
REPORT = [*INGREDIENTS, "--report", "--out -o $SOUP_OUT", "--dtype $SOUP_DTYPE", "--force"]
SOUP = [
    *INGREDIENTS,
    "--out -o $SOUP_OUT",
    "--dtype $SOUP_DTYPE",
    "--max-shard-size $SOUP_MAX_SHARD_SIZE",
    "--format $SOUP_FORMAT",
    "--keep-state",
    "--recalibrate",
    "--card --no-card",
    "--merge-adapters",
    "--adapter-rank $SOUP_ADAPTER_RANK",
    "--require-gain $SOUP_REQUIRE_GAIN",
    "--output-format",
    "--force",
]
FLAGS = {
    "rank": [*REPORT, "--save-logits", "--scores", "--objective $SOUP_OBJECTIVE"],
    "uniform": [*SOUP, "--scale $SOUP_SCALE"],
    "greedy": [
        *SOUP,
        "--scale $SOUP_SCALE",
        "--speculate",
        "--min-delta $SOUP_MIN_DELTA",
        "--early-stop --no-early-stop $SOUP_EARLY_STOP",
        "--strategy $SOUP_STRATEGY",
        "--orders $SOUP_ORDERS",
        "--budget $SOUP_BUDGET",
        "--windows $SOUP_WINDOWS",
        "--objective $SOUP_OBJECTIVE",
        "--decay",
        "--logits",
        "--scores",
        "--with-uniform",
    ],
    "learned": [
        *SOUP,
        "--scale $SOUP_SCALE",
        "--per $SOUP_PER",
        "--budget $SOUP_BUDGET",
        "--groups",
        "--objective $SOUP_OBJECTIVE",
        "--constraint $SOUP_CONSTRAINT",
        "--resident $SOUP_RESIDENT",
        "--with-uniform",
    ],
    "eval": [*REPORT, "--require-gain $SOUP_REQUIRE_GAIN", "--output-format"],
    "inspect": [*REPORT, "--strict"],
    "mix": [
        "REPORT",
        *SOUP,
        "--weights $SOUP_WEIGHTS",
        "--weights-for...",
        "--method $SOUP_METHOD",
        "--alpha $SOUP_ALPHA",
        "--decay $SOUP_DECAY",
        "--any-weights",
    ],
    "landscape": [*REPORT, "--grid", "--margin"],
    "pairs": [*REPORT, "--pairs", "--seed"],
    "verify": [
        "SOUP",
        "--rebuild",
        "--weights-name",
        "--trust",
        "--trust-code",
        "--allow-class...",
        "--json",
        "--quiet -q",
    ],
    "push": ["SOUP", "ORG/NAME", "--private", "--revision", "--force", "--json", "--quiet -q"],
    "plot": ["REPORT", "--out -o", "--kind...", "--theme", "--quiet -q"],
    "report": ["REPORT", "--out -o"],
    "init": ["--out -o", "--force"],
    "cache": ["KIND", "--clear", "--json", "--quiet -q"],
    "schema": ["recipe|report"],
    "demo": ["KIND|DIR", "--seed", "--quiet -q"],
}

GROUP: Any = typer.main.get_command(app_of(*COMMANDS))


def described(param: Any) -> str:
    """A parameter's names, `...` where it takes many words, and its environment variable."""
    if param.param_type_name == "argument":
        return str(param.metavar)
    return (
        " ".join([*param.opts, *param.secondary_opts])
        + ("..." if param.multiple else "")
        + (f" ${param.envvar}" if param.envvar else "")
    )


def test_commands() -> None:
    """The commands of the contract, in the order of its table, and those beside them."""
    assert list(GROUP.commands) == list(FLAGS)


@pytest.mark.parametrize("command", FLAGS)
def test_flags(command: str) -> None:
    """The command has these flags and no others."""
    assert sorted(described(param) for param in GROUP.commands[command].params) == sorted(FLAGS[command])


@pytest.mark.parametrize("command", FLAGS)
def test_every_flag_is_explained(command: str) -> None:
    """Every parameter has a help text that ends its sentence, and every command one line that fits the list."""
    assert all(param.help and param.help.endswith((".", ").")) for param in GROUP.commands[command].params)
    first_line = GROUP.commands[command].help.splitlines()[0]
    assert len(first_line) <= 80 - len("  uniform  ") and first_line.endswith(".")


def test_flags_of_soup() -> None:
    """Beside the commands there are the version, help and completion."""
    assert sorted(described(param) for param in GROUP.params) == [
        "--install-completion",
        "--show-completion",
        "--version",
    ]
