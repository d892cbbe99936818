"""Trackio: `--report-to trackio`. TRACKIO_PROJECT, TRACKIO_DIR, TRACKIO_SPACE_ID and its other variables apply.

https://huggingface.co/docs/trackio
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soupcli.environment import import_extra
from soupcli.output.trackers.tracker import PROJECT, TrackedRun, TrackedTable


class TrackioTracker:
    """A run of Trackio."""

    def __init__(self, about: TrackedRun) -> None:
        self._trackio: Any = import_extra("trackio", extra="trackio")
        active = import_extra("trackio.context_vars", extra="trackio").current_run.get()
        self._is_own = active is None
        self._run = active or self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=about.name,
            config={"command": about.command, "soup": dict(about.recipe)},
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        self._run.log({f"soup/{key}": value for key, value in values.items()}, step=step if self._is_own else None)

    def summarize(self, values: Mapping[str, float]) -> None:
        """See Tracker. Trackio keeps no summary: the last step holds it."""
        self._run.log({f"soup/{key}": value for key, value in values.items()})

    def table(self, table: TrackedTable) -> None:
        """See Tracker."""
        rows = [list(row) for row in table.rows]
        self._run.log({f"soup/{table.name}": self._trackio.Table(columns=list(table.columns), data=rows)})

    def figure(self, name: str, svg: str) -> None:
        """See Tracker."""
        self._run.log({f"soup/figures/{name}": self._trackio.Html(svg)})

    def folder(self, path: Path, name: str, kind: str) -> None:
        """See Tracker."""
        artifact = self._trackio.Artifact(name, type=kind)
        artifact.add_dir(str(path))
        self._run.log_artifact(artifact)

    def close(self, *, failed: bool) -> None:
        """See Tracker. A run of Trackio has no exit code: it holds `soup/failed`."""
        if failed:
            self._run.log({"soup/failed": 1})
        if self._is_own:
            self._trackio.finish()
