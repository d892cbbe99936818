"""The trackers, by the name that `--report-to` takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from soupcli.environment import import_extra
from soupcli.errors import UsageError
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.output.trackers.tracker import TrackedRun, Tracker


class TrackerKind(NamedTuple):
    """The module and class of a tracker, imported when it is used. Library and extra have the tracker's name."""

    module: str
    name: str


TRACKERS = {
    "trackio": TrackerKind("soupcli.output.trackers.trackio", "TrackioTracker"),
    "wandb": TrackerKind("soupcli.output.trackers.wandb", "WandbTracker"),
    "mlflow": TrackerKind("soupcli.output.trackers.mlflow", "MlflowTracker"),
}


def tracker_named(name: str) -> Callable[[TrackedRun], Tracker]:
    """Return the class of a tracker. Raises UsageError for an unknown name, MissingExtra if it is not installed."""
    if name not in TRACKERS:
        hint = f"one of {', '.join(TRACKERS)}"
        raise UsageError(f"--report-to {name}: not known{suggestion(name, TRACKERS)}", hint=hint)
    import_extra(name, extra=name)
    kind = TRACKERS[name]
    begin: Callable[[TrackedRun], Tracker] = getattr(importlib.import_module(kind.module), kind.name)
    return begin
