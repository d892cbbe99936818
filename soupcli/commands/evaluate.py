"""`soup eval --ckpts P... --val V...`: any checkpoints, soups too, on any number of sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soupcli.cli.options import EvalOptions
    from soupcli.cli.parsing import Invocation


def evaluate(options: EvalOptions, invocation: Invocation) -> int:
    """Evaluate checkpoints, soups too, on any number of sets."""
    from soupcli.run.run import Session
    from soupcli.run.score_alone import measure

    with Session("eval", options, invocation) as session:
        return measure(session, options)
