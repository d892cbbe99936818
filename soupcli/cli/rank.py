"""`soup rank --ckpts P... --val V`: every checkpoint alone, best first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import ReportOptions, Scores
from soupcli.errors import UsageError


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


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "rank", examples="soup rank --ckpts runs/*/ --val imagenet-val")(rank)


def rank(options: RankOptions, invocation: Invocation) -> int:
    """Evaluate every checkpoint alone, best first."""
    from soupcli.cli.measured import measure
    from soupcli.cli.published import rank_published
    from soupcli.cli.session import Session

    if options.scores is not None:
        if options.save_logits is not None:
            raise UsageError("--scores: evaluates nothing, so there are no logits for --save-logits")
        with Session("rank", replace(options, val=None), invocation) as session:
            session.check_mixable()
            return rank_published(session, options, options.scores, options.val or [])
    with Session("rank", options, invocation) as session:
        session.check_mixable()
        return measure(session, options)
