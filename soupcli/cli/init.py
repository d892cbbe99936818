"""`soup init`: a commented soup.yaml from what lies in the folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from soupcli.cli import console
from soupcli.cli.commands import Invocation, command


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """Options of `soup init`."""

    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The recipe to write.")] = Path("soup.yaml")
    force: Annotated[bool, typer.Option("--force", help="Replace the recipe that is there.")] = False


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "init", examples="soup init")(init)


def init(options: InitOptions, invocation: Invocation) -> int:
    """Write a commented soup.yaml from what is found in this folder."""
    from soupcli.checkpoints.writing import write_whole
    from soupcli.cli.found import recipe_text, survey
    from soupcli.errors import OutputError

    if options.out.exists() and not options.force:
        raise OutputError(f"{options.out}: exists already", hint="--force replaces it, --out writes elsewhere")
    found = survey(options.out.parent)
    write_whole(options.out, recipe_text(found))
    console.note(f"{options.out}: {found.summary()}")
    console.print_result(str(options.out))
    return 0
