"""`soup mix`: checkpoints mixed by given weights, along the line from the start, or by Model Stock; or a soup again.

soup mix --ckpts runs/a runs/b --weights 0.7,0.3
soup mix --ckpts runs/*/ --base init/ --alpha 0:1:0.1 --val imagenet-val imagenet-r
soup mix --ckpts runs/*/ --base init/ --method stock
soup mix soup/soup.json --out again/
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import SoupOptions
from soupcli.errors import UsageError

# What can be said beside a report; all else stands in it.
BESIDE_REPORT = {"report", "out", "weights_name", "trust", "allow_class", "as_json", "quiet", "dry_run", "force"}


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


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "mix", examples="soup mix --ckpts runs/a runs/b --weights 0.7,0.3")(mix)


def mix(options: MixOptions, invocation: Invocation) -> int:
    """Mix by weights, or again as a report says."""
    if options.report is not None:
        from soupcli.cli.again import write_again

        _check_alone(options, invocation)
        return write_again(options, options.report)
    from soupcli.cli.blending import blend

    return blend(options, invocation)


def _check_alone(options: MixOptions, invocation: Invocation) -> None:
    """Raises UsageError for a flag that a report leaves nothing to say to."""
    for field in dataclasses.fields(options):
        given = (
            getattr(options, field.name) not in (field.default, []) and field.name not in invocation.from_environment
        )
        if given and field.name not in BESIDE_REPORT:
            flag = field.name.strip("_").replace("_", "-")
            raise UsageError(
                f"--{flag}: does not go with {options.report}, which says what is mixed and how",
                hint="leave one of the two out: soup mix REPORT writes that soup again, byte for byte",
            )
