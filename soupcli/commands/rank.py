"""`soup rank --ckpts P... --val V`: evaluates each checkpoint by itself, best first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from soupcli.errors import UsageError
from soupcli.run.external_scores import rank_by_file
from soupcli.run.run import Run
from soupcli.run.score_alone import score_alone
from soupcli.run.words.resolve import resolve

if TYPE_CHECKING:
    from soupcli.cli.options.surveys import RankOptions
    from soupcli.cli.parsing import Invocation


def rank(options: RankOptions, invocation: Invocation) -> int:
    """Evaluate every checkpoint by itself, best first."""
    with Run(resolve(of_run(options), invocation)) as run:
        run.check_mixable()
        if options.scores is not None:
            return rank_by_file(run, options, options.scores)
        return score_alone(run, options)


def of_run(options: RankOptions) -> RankOptions:
    """Return the options of the run. With --scores the names after --val are columns of that file, not sets.

    Raises UsageError for options that do not go together.
    """
    if options.scores is None:
        return options
    if options.save_logits is not None:
        raise UsageError(
            "--scores: evaluates nothing, so there are no logits for --save-logits", hint="leave one of the two out"
        )
    return replace(options, val=None)
