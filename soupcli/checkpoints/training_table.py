"""Reads the table that a trainer writes beside its checkpoints: timm's summary.csv, Lightning's metrics.csv, log.csv.

highest = highest_in_table(Path("runs/a"))                 # {"val_acc": 0.975}: the greatest number of each column
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from soupcli.files.reading import read_small

NAMES = ("summary.csv", "metrics.csv", "results.csv", "log.csv", "logs.csv", "history.csv", "training_log.csv")
LARGEST = 20_000_000  # bytes


def highest_in_table(folder: Path) -> dict[str, float]:
    """Return the greatest finite number of each column of the first such table, or {} if there is none."""
    for name in NAMES:
        try:
            lines = read_small(folder / name, most=LARGEST).decode("utf-8-sig", "replace").splitlines()
            rows = list(csv.DictReader(lines))
        except (OSError, csv.Error):
            continue
        found: dict[str, float] = {}
        for row in rows:
            for column, text in row.items():
                number = _number(text)
                if number is not None and column:
                    found[column.strip()] = max(number, found.get(column.strip(), number))
        return found
    return {}


def _number(text: object) -> float | None:
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
