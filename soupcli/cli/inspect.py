"""`soup inspect --ckpts P... [--base INIT] [--val V]`: whether checkpoints can be mixed, and whether they should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from soupcli.cli.commands import ANSWER_NO, DONE, Invocation, command
from soupcli.cli.options import ReportOptions


@dataclass(frozen=True, kw_only=True)
class InspectOptions(ReportOptions):
    """Options of `soup inspect`."""

    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where a reason not to mix was found.")] = False


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    examples = "soup inspect --ckpts runs/*/ --base start/ --val imagenet-val"
    command(app, "inspect", examples=examples)(inspect)


def inspect(options: InspectOptions, invocation: Invocation) -> int:
    """Say whether checkpoints can and should be mixed, and why not."""
    from soupcli.checkpoints.writing import check_file
    from soupcli.cli.inspected import examine
    from soupcli.cli.inspection_tables import show
    from soupcli.cli.plan import Plan, show_plan
    from soupcli.cli.session import Session

    with Session("inspect", options, invocation) as session:
        if options.dry_run:
            return show_plan(session, Plan((2 * len(session.checkpoints) + 1) * len(session.sets)))
        if options.report is not None:
            check_file(options.report)
        examined = examine(session)
        session.progress.close()
        show(session, options, examined)
        return ANSWER_NO if options.strict and examined.verdicts else DONE
