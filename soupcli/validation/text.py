"""`{text: data/sst2-dev.jsonl, input: [sentence], label: label}`: rows of jsonl, csv, tsv or parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from soupcli.checkpoints.files import FileVersion, sha256
from soupcli.errors import ValidationError
from soupcli.extras import need
from soupcli.progress import Progress, silent
from soupcli.recipe import TextSet
from soupcli.recipe_yaml import suggestion
from soupcli.validation.examples import TokenExamples

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
ROWS_AT_ONCE = 1024

Row = dict[str, Any]


def fingerprint(spec: TextSet) -> str:
    """Of the file's content."""
    return f"text:{sha256(FileVersion.of(spec.text))}"


def load(
    spec: TextSet, tokenizer: Any, *, label_names: Sequence[str] | None = None, progress: Progress = silent
) -> TokenExamples:
    """All rows, tokenised once, as the tokenizer does it, cut at its own longest input or at `max_length`.

    Raises ValidationError where a column is missing or a label is neither a number nor a known name.
    """
    rows = _rows(spec)
    labels = torch.tensor([_label(spec, row, number, label_names) for number, row in enumerate(rows, 1)])
    texts = [[_text(spec, row, number, column) for column in spec.input] for number, row in enumerate(rows, 1)]
    pieces: dict[str, list[int]] = {}
    starts = [0]
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        part = texts[begin : begin + ROWS_AT_ONCE]
        encoded = tokenizer(*[list(column) for column in zip(*part, strict=True)], **_cut(spec, tokenizer))
        for name, sequences in encoded.items():
            flat = pieces.setdefault(name, [])
            for sequence in sequences:
                flat.extend(sequence)
        for sequence in encoded["input_ids"]:
            starts.append(starts[-1] + len(sequence))
        progress(f"tokenising {spec.text}", min(begin + ROWS_AT_ONCE, len(rows)), len(rows))
    padding = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0)}
    columns = {name: torch.tensor(flat) for name, flat in pieces.items()}
    left = getattr(tokenizer, "padding_side", "right") == "left"
    return TokenExamples(columns, torch.tensor(starts), labels, fingerprint(spec), padding, left)


def _cut(spec: TextSet, tokenizer: Any) -> dict[str, Any]:
    longest = spec.max_length or tokenizer.model_max_length
    return {"truncation": True, "max_length": longest} if longest < 1_000_000 else {}


def _rows(spec: TextSet) -> list[Row]:
    path = spec.text
    if not path.is_file():
        raise ValidationError(f"{path}: no such file")
    reader = {".jsonl": _jsonl, ".csv": _separated, ".tsv": _separated, ".parquet": _parquet}.get(path.suffix)
    if reader is None:
        raise ValidationError(f"{path}: a text set is one of {', '.join(SUFFIXES)}")
    try:
        rows = reader(path)
    except (UnicodeDecodeError, csv.Error) as cause:
        raise ValidationError(f"{path}: {cause}") from cause
    if not rows:
        raise ValidationError(f"{path}: has no rows")
    for column in (*spec.input, spec.label):
        if column not in rows[0]:
            raise ValidationError(
                f"{path}: has no column {column!r}{suggestion(column, rows[0])}",
                hint=f"its columns are {', '.join(rows[0])}: name them with input: and label: in the recipe",
            )
    return rows


def _jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as cause:
                raise ValidationError(f"{path}:{number}: not JSON: {cause}") from cause
            if not isinstance(row, dict):
                raise ValidationError(f"{path}:{number}: a row is a JSON object, not a {type(row).__name__}")
            rows.append(row)
    return rows


def _separated(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as lines:
        if path.suffix == ".tsv":
            return [dict(row) for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
        return [dict(row) for row in csv.DictReader(lines)]


def _parquet(path: Path) -> list[Row]:
    rows: list[Row] = need("pyarrow.parquet", extra="parquet").read_table(path).to_pylist()
    return rows


def _text(spec: TextSet, row: Row, number: int, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise ValidationError(f"{spec.text}: row {number}: {column!r} is {value!r}, not text")
    return value


def _label(spec: TextSet, row: Row, number: int, label_names: Sequence[str] | None) -> int:
    value = row.get(spec.label)
    names = spec.labels or label_names or ()
    if isinstance(value, str) and value in names:
        return list(names).index(value)
    try:
        if isinstance(value, str | int) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise ValidationError(
        f"{spec.text}: row {number}: label {value!r} is neither a number nor one of {', '.join(names) or 'no names'}",
        hint="name the classes in the order of the logits: labels: [negative, positive]",
    )
