"""Scores measured elsewhere: a jsonl file with one line for each model, as the authors of model soups publish.

    {"model_name": "model_0", "ImageNet2p": 0.7808, "ImageNet": 0.7557, "ImageNetV2": 0.6409}

A csv, tsv or parquet file has the same names at the heads of its columns. The layout is that of
individual_model_results.jsonl in github.com/mlfoundations/model-soups: `model_name` is the stem of the file of weights,
every other number the score on a set, a fraction of 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.datasets.rows import read_rows
from soupcli.errors import UsageError, ValidationError
from soupcli.files.small_file import read_small
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

MOST_BYTES = 100_000_000
NAMES = (
    "modelname",
    "model",
    "name",
    "checkpoint",
    "path",
)  # keys that may name the model, but for case and punctuation; the authors' first
TABLES = (".csv", ".tsv", ".parquet")
DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*%?", re.ASCII)
HINT = 'one JSON object a line: {"model_name": "model_0", "ImageNet": 0.7557}'


class ScoresFile(NamedTuple):
    """Scores by model, then by column."""

    path: Path
    rows: Mapping[str, Mapping[str, float]]

    @property
    def columns(self) -> list[str]:
        """The columns that every model has, in the order of the file."""
        rows = list(self.rows.values())
        return [column for column in rows[0] if all(column in row for row in rows)]

    def column_of(self, set_name: str) -> str:
        """Return the column of a set, by its exact name or else whatever case and punctuation. Raises UsageError."""
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
        """Return each checkpoint's scores. Raises UsageError for one without a line. Other lines are allowed."""
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
                raise UsageError(
                    f"{self.path}: {name!r} is {taken[name].path} and {checkpoint.path}",
                    hint="name the models by their paths in the file",
                )
            taken[name] = checkpoint
            found[checkpoint] = self.rows[name]
        return found

    def others(self, checkpoints: Sequence[Checkpoint]) -> list[str]:
        """Return the models of the file that are not among the checkpoints."""
        taken = {name for one in checkpoints for name in _names_of(one.path)}
        return [name for name in self.rows if name not in taken]


def read_scores(path: Path) -> ScoresFile:
    """Read the file. Raises UsageError if it does not have this layout."""
    rows: dict[str, Mapping[str, float]] = {}
    for where, row in _table(path) if path.suffix.lower() in TABLES else _lines(path):
        name = _name(row, where)
        if name in rows:
            raise UsageError(
                f"{where}: {name!r} has a line already", hint="one line for each model: remove the older one"
            )
        rows[name] = _numbers(row, where)
    scores = ScoresFile(path, rows)
    if not rows or not scores.columns:
        raise UsageError(f"{path}: has no score that all of its {len(rows)} models have", hint=HINT)
    return scores


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return the objects of a jsonl file, each with its place."""
    try:
        lines = read_small(path, most=MOST_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(f"{path}: {getattr(cause, 'strerror', None) or 'is not UTF-8'}", hint=HINT) from cause
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as cause:
                hint = f"{HINT}; or a file that ends in {', '.join(TABLES)}"
                raise UsageError(f"{where}: is not JSON: {cause}", hint=hint) from cause
            yield where, row if isinstance(row, dict) else {}


def _table(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return the rows of a csv, tsv or parquet file, each with its place, with numbers as numbers."""
    try:
        rows = read_rows(path, [])
    except ValidationError as refused:
        raise UsageError(str(refused), hint=refused.hint) from refused
    names = {column for column in rows[0] if _plain(column) in NAMES}
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", {key: value if key in names else _cell(value) for key, value in row.items()}


def _cell(value: Any) -> Any:
    """Return a number for text such as `0.78` and `78%`, and any other value unchanged."""
    if not isinstance(value, str) or DECIMAL.fullmatch(value.strip()) is None:
        return value
    text = value.strip()
    return float(Decimal(text[:-1].strip()) / 100) if text.endswith("%") else float(text)


def _name(row: Mapping[str, Any], where: str) -> str:
    """Return the model of a row, by the first key of NAMES in it, whatever its case and punctuation."""
    named = {_plain(key): value for key, value in reversed(list(row.items())) if isinstance(value, str)}
    key = next((key for key in NAMES if key in named), None)
    if key is None:
        raise UsageError(f"{where}: names no model", hint=f"{HINT}; the name may stand under {', '.join(NAMES[1:])}")
    return str(named[key])


def _numbers(row: Mapping[str, Any], where: str) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in row.items() if _is_number(value)}
    except OverflowError as cause:
        raise UsageError(f"{where}: a score with more digits than a number can have", hint=HINT) from cause


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names_of(path: Path) -> list[str]:
    """Return the names by which a line may call a checkpoint: path, file or folder, each without its ending too."""
    return list(dict.fromkeys((str(path), path.name, path.stem)))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
