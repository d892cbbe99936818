"""`soup rank --ckpts P... --val V`: every checkpoint alone, best first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from soupcli.errors import UsageError

if TYPE_CHECKING:
    from soupcli.cli.options import RankOptions
    from soupcli.cli.parsing import Invocation


def rank(options: RankOptions, invocation: Invocation) -> int:
    """Evaluate every checkpoint alone, best first."""
    from soupcli.run.external_scores import rank_published
    from soupcli.run.run import Session
    from soupcli.run.score_alone import measure

    if options.scores is not None:
        if options.save_logits is not None:
            raise UsageError("--scores: evaluates nothing, so there are no logits for --save-logits")
        with Session("rank", replace(options, val=None), invocation) as session:
            session.check_mixable()
            return rank_published(session, options, options.scores, options.val or [])
    with Session("rank", options, invocation) as session:
        session.check_mixable()
        return measure(session, options)
