"""Options of the commands that measure checkpoints and write no soup."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from soupcli.cli.options.common import GatedOptions, ObjectiveFlag, ReportOptions, ReportResult, Scores


@dataclass(frozen=True, kw_only=True)
class EvalOptions(GatedOptions, ReportOptions):
    """Options of `soup eval`."""


@dataclass(frozen=True, kw_only=True)
class InspectOptions(ReportOptions):
    """Options of `soup inspect`."""

    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a problem is found.")] = False


@dataclass(frozen=True, kw_only=True)
class LandscapeOptions(ReportOptions):
    """Options of `soup landscape`."""

    grid: Annotated[int, typer.Option("--grid", min=2, help="Points along each axis (N x N evaluations).")] = 11
    margin: Annotated[
        float,
        typer.Option("--margin", min=0.0, help="How far the grid goes beyond the triangle, as a fraction of its size."),
    ] = 0.25
    report: ReportResult = Path("landscape.json")


@dataclass(frozen=True, kw_only=True)
class PairsOptions(ReportOptions):
    """Options of `soup pairs`."""

    pairs: Annotated[
        int | None, typer.Option("--pairs", min=1, help="Number of pairs to draw (default: all, N(N-1)/2 evaluations).")
    ] = None
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0
    report: ReportResult = Path("pairs.json")


@dataclass(frozen=True, kw_only=True)
class RankOptions(ReportOptions):
    """Options of `soup rank`."""

    objective: ObjectiveFlag = None
    save_logits: Annotated[
        Path | None,
        typer.Option(
            "--save-logits", metavar="DIR", help="Write logits of every checkpoint here, for soup greedy --logits."
        ),
    ] = None
    scores: Scores = None

    @property
    def logit_folder(self) -> Path | None:
        """The folder of --save-logits."""
        return self.save_logits
