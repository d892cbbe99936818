"""The findings of an inspection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import Checkpoint

if TYPE_CHECKING:
    from soupcli.diagnosis.barrier import Barrier
    from soupcli.diagnosis.causes import Diagnosis
    from soupcli.diagnosis.facts import Facts
    from soupcli.evaluation.score import Score

NotFinite = tuple[Checkpoint, str, float]


class Examined(NamedTuple):
    """Everything that an inspection found."""

    facts: Facts
    refused: str | None  # why they cannot be mixed
    ties: dict[Checkpoint, list[tuple[str, ...]]]
    integers: list[str]
    alone: list[dict[str, Score]]  # each checkpoint's scores by set; nothing if it could not be evaluated
    barriers: dict[str, Barrier]  # by set
    verdicts: list[Diagnosis]
