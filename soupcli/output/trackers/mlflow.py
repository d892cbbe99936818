"""MLflow: `--report-to mlflow`. MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and its other variables apply.

https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soupcli.environment import import_extra
from soupcli.output.trackers.tracker import PROJECT, TrackedRun, TrackedTable

NOT_IN_NAMES = re.compile(r"[^\w\-. /]", re.ASCII)  # of metrics; the library refuses the others


class MlflowTracker:
    """A run of MLflow, through its client, so that the library's global state stays unchanged."""

    def __init__(self, about: TrackedRun) -> None:
        mlflow = import_extra("mlflow", extra="mlflow")
        self._client: Any = mlflow.MlflowClient()
        active = mlflow.active_run()
        self._is_own = active is None
        self._id = str(active.info.run_id if active is not None else self._created(about))
        self._client.log_dict(self._id, dict(about.recipe), "soup/recipe.json")

    def _created(self, about: TrackedRun) -> str:
        if known := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            experiment = known
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        run = self._client.create_run(experiment, run_name=about.name, tags={"soup.command": about.command})
        return str(run.info.run_id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        for key, value in values.items():
            self._client.log_metric(self._id, NOT_IN_NAMES.sub("_", f"soup/{key}"), value, step=step)

    def summarize(self, values: Mapping[str, float]) -> None:
        """See Tracker."""
        self.log(values, 0)

    def table(self, table: TrackedTable) -> None:
        """See Tracker."""
        columns = {column: [row[place] for row in table.rows] for place, column in enumerate(table.columns)}
        self._client.log_table(self._id, columns, f"soup/{table.name}.json")

    def figure(self, name: str, svg: str) -> None:
        """See Tracker."""
        self._client.log_text(self._id, svg, f"soup/figures/{name}.svg")

    def folder(self, path: Path, name: str, kind: str) -> None:
        """See Tracker."""
        self._client.log_artifacts(self._id, str(path), f"{kind}/{name}")

    def close(self, *, failed: bool) -> None:
        """See Tracker."""
        if self._is_own:
            self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")
