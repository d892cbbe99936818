"""`soup eval --ckpts P... --val V...`: any checkpoints, soups too, on any number of sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.run.run import Run
from soupcli.run.score_alone import score_alone
from soupcli.run.words.resolve import resolve

if TYPE_CHECKING:
    from soupcli.cli.options.surveys import EvalOptions
    from soupcli.cli.parsing import Invocation


def evaluate(options: EvalOptions, invocation: Invocation) -> int:
    """Evaluate checkpoints, soups too, on any number of sets."""
    with Run(resolve(options, invocation)) as run:
        return score_alone(run, options)
