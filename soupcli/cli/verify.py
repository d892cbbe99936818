"""`soup verify soup/`: whether a soup is what its report says, and can be made again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import AllowClass, Trust, WeightsName


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


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "verify", examples="soup verify soup/ --rebuild")(verify)


def verify(options: VerifyOptions, invocation: Invocation) -> int:
    """Check a soup against its report and its ingredients."""
    from soupcli.cli.verifying import check

    return check(options)
