"""Scores that someone else measured: a jsonl file with one line for each model, as the authors of model soups publish.

    {"model_name": "model_0", "ImageNet2p": 0.7808, "ImageNet": 0.7557, "ImageNetV2": 0.6409}

The layout is that of individual_model_results.jsonl in github.com/mlfoundations/model-soups: `model_name` is the stem
of the file of weights, every other number the score on a set, a fraction of 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.errors import UsageError
from soupcli.files.reading import read_small
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

MOST_BYTES = 100_000_000
NAMES = ("model_name", "model", "name", "checkpoint", "path")  # keys that may name the model, the authors' first
HINT = 'one JSON object a line: {"model_name": "model_0", "ImageNet": 0.7557}'


class ScoresFile(NamedTuple):
    """Scores by model, then by column."""

    path: Path
    rows: Mapping[str, Mapping[str, float]]

    @property
    def columns(self) -> list[str]:
        """Columns that every model has, in the order of the file."""
        rows = list(self.rows.values())
        return [column for column in rows[0] if all(column in row for row in rows)]

    def column_of(self, set_name: str) -> str:
        """The column of a set: of its very name, or but for case and punctuation. Raises UsageError."""
        if set_name in self.columns:
            return set_name
        alike = [column for column in self.columns if _plain(column) == _plain(set_name)]
        if len(alike) != 1:
            raise UsageError(
                f"{self.path}: has no column {set_name!r}{suggestion(set_name, self.columns)}",
                hint=f"it has {', '.join(self.columns)}: name the set in the recipe as its column",
            )
        return alike[0]

    def of(self, checkpoints: Sequence[Checkpoint]) -> dict[Checkpoint, Mapping[str, float]]:
        """Each checkpoint's scores. Raises UsageError for a checkpoint without a line and a line without one."""
        found: dict[Checkpoint, Mapping[str, float]] = {}
        taken: dict[str, Checkpoint] = {}
        for checkpoint in checkpoints:
            name = next((name for name in _names_of(checkpoint.path) if name in self.rows), None)
            if name is None:
                near = suggestion(checkpoint.path.stem, self.rows)
                raise UsageError(
                    f"{self.path}: has no line for {checkpoint.path}{near}",
                    hint=f"a line is found by {' or '.join(map(repr, _names_of(checkpoint.path)))}",
                )
            if name in taken:
                raise UsageError(f"{self.path}: {name!r} is {taken[name].path} and {checkpoint.path}")
            taken[name] = checkpoint
            found[checkpoint] = self.rows[name]
        without = [name for name in self.rows if name not in taken]
        if without:
            more = f" and {len(without) - 3} more" if len(without) > 3 else ""
            raise UsageError(
                f"{self.path}: no checkpoint is {', '.join(map(repr, without[:3]))}{more}",
                hint="give all checkpoints that the file has, or leave out their lines",
            )
        return found


def read_scores(path: Path) -> ScoresFile:
    """The file. Raises UsageError if it is not of this layout."""
    try:
        lines = read_small(path, most=MOST_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(f"{path}: {getattr(cause, 'strerror', None) or 'is not UTF-8'}", hint=HINT) from cause
    rows: dict[str, Mapping[str, float]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, row = _row(line, f"{path}:{number}")
            if name in rows:
                raise UsageError(f"{path}:{number}: {name!r} has a line already")
            rows[name] = row
    scores = ScoresFile(path, rows)
    if not rows or not scores.columns:
        raise UsageError(f"{path}: has no score that all of its {len(rows)} models have", hint=HINT)
    return scores


def _row(line: str, where: str) -> tuple[str, Mapping[str, float]]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as cause:
        raise UsageError(f"{where}: is not JSON: {cause}", hint=HINT) from cause
    key = next((key for key in NAMES if isinstance(row, dict) and isinstance(row.get(key), str)), None)
    if key is None:
        raise UsageError(f"{where}: names no model", hint=HINT)
    numbers = {name: _number(value, where) for name, value in row.items() if _is_number(value)}
    return row[key], numbers


def _number(value: float, where: str) -> float:
    try:
        return float(value)
    except OverflowError as cause:
        raise UsageError(f"{where}: a score with more digits than a number can have", hint=HINT) from cause


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names_of(path: Path) -> list[str]:
    """Names of this checkpoint in a line: its path, its file or folder, the same without its ending."""
    return list(dict.fromkeys((str(path), path.name, path.stem)))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
