"""Rows of a jsonl, csv, tsv or parquet file, as mappings from column names to values."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from soupcli.environment import need
from soupcli.errors import ValidationError
from soupcli.wording import suggestion

Row = dict[str, Any]

ENCODING = "utf-8-sig"  # with or without the mark that spreadsheets put first
LONGEST_FIELD = 1 << 30  # of csv and tsv; Python's own limit is less than a long document


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """All rows, which have at least `columns`. Raises ValidationError for anything else, naming the row or line."""
    if not path.is_file():
        raise ValidationError(f"{path}: no such file")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValidationError(f"{path}: a text set is one of {', '.join(READERS)}")
    try:
        rows = reader(path)
    except UnicodeDecodeError as cause:
        raise ValidationError(f"{path}: not UTF-8 at byte {cause.start}", hint="convert it with iconv") from cause
    except (csv.Error, OSError) as cause:
        raise ValidationError(f"{path}: {cause}") from cause
    if not rows:
        raise ValidationError(f"{path}: has no rows")
    for column in columns:
        if column not in rows[0]:
            raise ValidationError(
                f"{path}: has no column {column!r}{suggestion(column, rows[0])}",
                hint=f"its columns are {', '.join(rows[0])}: name them with input: and label: in the recipe",
            )
    return rows


def _jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    with path.open(encoding=ENCODING) as lines:
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


def _csv(path: Path) -> list[Row]:
    return _separated(path)


def _tsv(path: Path) -> list[Row]:
    """Tabs separate, and a quotation mark is text, as in the GLUE files."""
    return _separated(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _separated(path: Path, **format_: Any) -> list[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding=ENCODING, newline="") as lines:
        reader = csv.reader(lines, **format_)
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise ValidationError(f"{path}: has the column {max(header, key=header.count)!r} twice")
        rows = []
        for fields in reader:
            if len(fields) != len(header) and fields:
                raise ValidationError(
                    f"{path}:{reader.line_num}: has {len(fields)} fields, the header has {len(header)}",
                    hint="quote fields that hold the separator",
                )
            if fields:
                rows.append(dict(zip(header, fields, strict=True)))
        return rows


def class_names(path: Path, column: str) -> list[str] | None:
    """The names that a parquet file of `datasets` gives to the numbers in a column (its ClassLabel feature)."""
    if path.suffix.lower() != ".parquet":
        return None
    metadata = need("pyarrow.parquet", extra="parquet").read_schema(path).metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _parquet(path: Path) -> list[Row]:
    parquet = need("pyarrow.parquet", extra="parquet")
    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except ValueError as cause:  # pyarrow.ArrowInvalid
        raise ValidationError(f"{path}: not a parquet file: {str(cause).splitlines()[0]}") from cause
    return rows


READERS: dict[str, Callable[[Path], list[Row]]] = {".jsonl": _jsonl, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet}
