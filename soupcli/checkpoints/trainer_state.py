"""What the Hugging Face Trainer measured at a checkpoint: `trainer_state.json` beside the weights.

The numbers are shown and nothing depends on them, so a file that cannot be read gives none.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

NAME = "trainer_state.json"
MAX_BYTES = 200_000_000
SPEEDS = ("_runtime", "_per_second", "_time", "_count")  # of the machine, not of the weights


def trainer_metrics(folder: Path) -> dict[str, float]:
    """The last evaluation at the checkpoint's own step, and the best metric of the run so far."""
    file = folder / NAME
    try:
        if file.stat().st_size > MAX_BYTES:
            return {}
        state: Any = json.loads(file.read_bytes())
        step, log = state["global_step"], state["log_history"]
        evaluated = [entry for entry in log if entry.get("step") == step and any(map(_is_metric, entry))]
        found = dict(evaluated[-1]) if evaluated else {}
        found = {name: value for name, value in found.items() if _is_metric(name)}
        found["best_metric"] = state.get("best_metric")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: float(value) for name, value in sorted(found.items()) if _is_number(value)}


def _is_metric(name: str) -> bool:
    return name.startswith("eval_") and not name.endswith(SPEEDS)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
