"""What transformers' trainer records beside a checkpoint, in `trainer_state.json`.

trainer_metrics(Path("run/checkpoint-500"))            # {"best_metric": 0.91, "eval_accuracy": 0.9}
trainer_progress(Path("run/checkpoint-500"))           # {"epoch": 2.0, "step": 500}
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from soupcli.files.json_text import finite, parse_json
from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from pathlib import Path

NAME = "trainer_state.json"
MAX_BYTES = 1 << 25  # a run of 100,000 logged steps writes half of that
SPEEDS = ("_runtime", "_per_second", "_time", "_count")  # of the machine, not of the weights


def trainer_metrics(folder: Path) -> dict[str, float]:
    """The last evaluation at the checkpoint's own step, and the best metric of the run so far."""
    state = _trainer_state(folder)
    log = state.get("log_history")
    evaluations = (entry for entry in log if isinstance(entry, dict)) if isinstance(log, list) else ()
    own = [entry for entry in evaluations if entry.get("step") == state.get("global_step")]
    measured = ({name: value for name, value in entry.items() if _is_metric(name)} for entry in reversed(own))
    found = next(filter(None, measured), {})
    return _numbers({**found, "best_metric": state.get("best_metric")})


def trainer_progress(folder: Path) -> dict[str, float]:
    """The `step` and `epoch` at which the checkpoint was saved, as far as its trainer says so."""
    state = _trainer_state(folder)
    return _numbers({"step": state.get("global_step"), "epoch": state.get("epoch")})


def best_by_trainer(folder: Path) -> str | None:
    """The name of the checkpoint that was the best so far, as far as its trainer says so."""
    named = _trainer_state(folder).get("best_model_checkpoint")
    return PurePath(named).name if isinstance(named, str) else None


def unread(folder: Path) -> str | None:
    """Why `trainer_state.json` cannot be read, e.g. because it is too large; None if it can, or is not there."""
    try:
        found = (folder / NAME).stat()
        _read_state(folder / NAME, found.st_mtime_ns, found.st_size)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as cause:
        return f"{folder / NAME}: {getattr(cause, 'strerror', None) or cause}"
    return None


def _trainer_state(folder: Path) -> dict[str, Any]:
    """Return the content of `trainer_state.json` without steps that evaluate nothing, or {} if it cannot be read."""
    try:
        found = (folder / NAME).stat()
        return _read_state(folder / NAME, found.st_mtime_ns, found.st_size)
    except (OSError, ValueError, RecursionError):
        return {}


@lru_cache(maxsize=2)  # metrics and progress of one are asked for one after the other
def _read_state(file: Path, _time: int, _size: int) -> dict[str, Any]:
    state = parse_json(read_small(file, most=MAX_BYTES), object_hook=_evaluation)
    return state if isinstance(state, dict) else {}


def _evaluation(entry: dict[str, Any]) -> dict[str, Any] | None:
    """Return None for one of the many steps of training that measure nothing, and anything else as it is."""
    return None if "step" in entry and "log_history" not in entry and not any(map(_is_metric, entry)) else entry


def _numbers(entries: Mapping[str, Any]) -> dict[str, float]:
    found = ((name, finite(value)) for name, value in sorted(entries.items()))
    return {name: number for name, number in found if number is not None}


def _is_metric(name: str) -> bool:
    return name.startswith("eval_") and not name.endswith(SPEEDS)
