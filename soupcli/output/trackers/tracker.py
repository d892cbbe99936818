"""The interface of an experiment tracker: numbers during the run; tables, figures and folders at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Cell = str | float | None
PROJECT = "soup"  # unless the tracker's own variable names another


class TrackedRun(NamedTuple):
    """What a tracker knows of a run before it begins."""

    command: str
    name: str
    recipe: Mapping[str, Any]
    quiet: bool


class TrackedTable(NamedTuple):
    """Rows under named columns."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Tracker(Protocol):
    """A run of a tracking library. If the user has an active run, it is used and not ended."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the numbers of one step. Steps never decrease."""

    def summarize(self, values: Mapping[str, float]) -> None:
        """Log numbers of the whole run."""

    def table(self, table: TrackedTable) -> None:
        """Log a table of the finished run."""

    def figure(self, name: str, svg: str) -> None:
        """Log a figure of the finished run, a whole SVG document."""

    def folder(self, path: Path, name: str, kind: str) -> None:
        """Keep the folder's files as an artifact. The files may be deleted after `close` returns."""

    def close(self, *, failed: bool) -> None:
        """End the run. No method is called afterwards."""
