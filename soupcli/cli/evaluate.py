"""`soup eval --ckpts P... --val V...`: any checkpoints, soups too, on any number of sets."""

from __future__ import annotations

import typer

from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import EvalOptions


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "eval", examples="soup eval --ckpts soup/ runs/*/ --val imagenet-val imagenet-v2")(evaluate)


def evaluate(options: EvalOptions, invocation: Invocation) -> int:
    """Evaluate checkpoints, soups too, on any number of sets."""
    from soupcli.cli.measured import measure
    from soupcli.cli.session import Session

    with Session("eval", options, invocation) as session:
        return measure(session, options)
