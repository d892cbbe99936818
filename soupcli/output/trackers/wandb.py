"""Weights & Biases: `--report-to wandb`. WANDB_PROJECT, WANDB_MODE=offline and its other variables apply.

https://docs.wandb.ai/ref/python
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soupcli.environment import import_extra
from soupcli.output.trackers.tracker import PROJECT, TrackedRun, TrackedTable

STEP = "soup_step"  # steps of its own, as the user's run may be at any step


class WandbTracker:
    """A run of Weights & Biases."""

    def __init__(self, about: TrackedRun) -> None:
        self._wandb: Any = import_extra("wandb", extra="wandb")
        active = self._wandb.run
        self._is_own = active is None
        self._run = active or self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", about.name),
            job_type=about.command,
            settings=self._wandb.Settings(console="off", silent=about.quiet),
        )
        self._run.config.update({"soup": dict(about.recipe)}, allow_val_change=True)
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("soup/*", step_metric=STEP)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        self._run.log({STEP: step, **{f"soup/{key}": value for key, value in values.items()}})

    def summarize(self, values: Mapping[str, float]) -> None:
        """See Tracker."""
        self._run.summary.update({f"soup/{key}": value for key, value in values.items()})

    def table(self, table: TrackedTable) -> None:
        """See Tracker."""
        rows = [list(row) for row in table.rows]
        self._run.log({f"soup/{table.name}": self._wandb.Table(columns=list(table.columns), data=rows)})

    def figure(self, name: str, svg: str) -> None:
        """See Tracker."""
        self._run.log({f"soup/figures/{name}": self._wandb.Html(svg, inject=False)})

    def folder(self, path: Path, name: str, kind: str) -> None:
        """See Tracker. A file is not copied before it is uploaded."""
        artifact = self._wandb.Artifact(name, type=kind)
        artifact.add_dir(str(path), policy="immutable" if kind == "model" else "mutable")
        self._run.log_artifact(artifact)

    def close(self, *, failed: bool) -> None:
        """See Tracker."""
        if self._is_own:
            self._run.finish(exit_code=int(failed))
