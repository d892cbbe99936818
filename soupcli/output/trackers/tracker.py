"""What an experiment tracker is asked to do: numbers while the run goes on, tables, figures and folders at its end."""

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
    """A run of a tracking library: the user's own if one is active, which is not ended then."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step; steps only grow."""

    def summarize(self, values: Mapping[str, float]) -> None:
        """Numbers that stand for the whole run."""

    def table(self, table: TrackedTable) -> None:
        """A table of the finished run."""

    def figure(self, name: str, svg: str) -> None:
        """A figure of the finished run, a whole SVG document."""

    def folder(self, path: Path, name: str, kind: str) -> None:
        """Keeps the folder's files as an artifact. They may be gone when `close` returns."""

    def close(self, *, failed: bool) -> None:
        """Ends the run. Nothing is called afterwards."""
