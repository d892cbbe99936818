"""`soup rank --ckpts P... --val V`: every checkpoint alone, best first."""

from __future__ import annotations

import typer

from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import ReportOptions


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "rank", examples="soup rank --ckpts runs/*/ --val imagenet-val")(rank)


def rank(options: ReportOptions, invocation: Invocation) -> int:
    """Evaluate every checkpoint alone, best first."""
    from soupcli.cli.measured import measure
    from soupcli.cli.session import Session

    with Session("rank", options, invocation) as session:
        session.check_mixable()
        return measure(session, options)
