"""Rows of a jsonl, csv, tsv or parquet file, as mappings from column names to values.

rows = read_rows(Path("dev.csv"), ["sentence", "label"])  # of millions of rows these columns alone are in memory
rows[0]                                                   # {"sentence": "...", "label": "1"}
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, overload

from soupcli.datasets.prompts import check_is_file
from soupcli.errors import ValidationError
from soupcli.files.json_text import TooManyValuesError, parse_json
from soupcli.files.parquet import check_parquet, open_parquet, read_columns
from soupcli.files.small_file import read_start
from soupcli.late import collection_paused
from soupcli.wording import suggestion, with_article

Row = dict[str, Any]

MOST_OF_LINE = 1_000_000  # bytes of a first line that are looked at
ENCODING = "utf-8-sig"  # with or without the mark that spreadsheets put first
LONG_LINE = 1_000_000  # characters of a line whose values are counted before it is parsed
MOST_COLUMNS, SHOWN = 10_000, 20
BLANK, MOST_BLANK = ("\n", "\r\n", "\r"), 100_000  # lines, one after the other
LONGEST = (
    1 << 24
)  # characters of a line, and of a field of csv and tsv; Python's own limit is less than a long document


class Columns(Sequence[Row]):
    """Rows that are kept by column, and made when they are asked for: mappings take four times the memory."""

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(next(iter(self._values.values()), ()))

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> Columns: ...
    def __getitem__(self, place: int | slice) -> Row | Columns:
        found = {name: values[place] for name, values in self._values.items()}
        return Columns(found) if isinstance(place, slice) else found


def read_rows(path: Path, columns: Sequence[str]) -> Sequence[Row]:
    """Return all rows, which must have `columns`: with these alone, or whole if there are none.

    A value that a row lacks is None. Raises ValidationError, with the row or line, for anything else.
    """
    check_is_file(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValidationError(
            f"{path}: a text set is one of {', '.join(READERS)}",
            hint="its name says which, e.g. dev.csv; pictures are images:, other things python:",
        )
    try:
        with collection_paused():
            rows = reader(path, columns)
    except UnicodeDecodeError as cause:
        raise ValidationError(f"{path}: not UTF-8 at byte {cause.start}", hint="convert it with iconv") from cause
    except (csv.Error, OSError) as cause:
        raise ValidationError(f"{path}: {cause}") from cause
    if not rows:
        raise ValidationError(
            f"{path}: has no rows", hint="a row for each example, and in csv and tsv a first line of column names"
        )
    for column in columns:
        if column not in rows[0]:
            raise ValidationError(
                f"{path}: has no column {column!r}{suggestion(column, rows[0])}",
                hint=f"its columns are {_named(list(rows[0]))}: --val {path}:INPUT:LABEL names them, as do input: and "
                "label: in the recipe",
            )
    return rows


def _named(columns: Sequence[str]) -> str:
    more = len(columns) - SHOWN
    return ", ".join(columns[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def columns_of(path: Path) -> list[str]:
    """Return the names of the columns, from the beginning of the file, or nothing if it cannot be read."""
    if path.suffix.lower() == ".parquet":
        try:
            return list(open_parquet(path).schema_arrow.names)
        except (OSError, ValueError, NotImplementedError, ValidationError):
            return []
    try:
        line = read_start(path, MOST_OF_LINE).decode(ENCODING, "replace").partition("\n")[0]
        if path.suffix.lower() == ".jsonl":
            row = json.loads(line)
            return list(row) if isinstance(row, dict) else []
        return next(csv.reader([line], delimiter="\t" if path.suffix.lower() == ".tsv" else ","), [])
    except (OSError, ValueError, RecursionError, csv.Error):
        return []


def first_rows(path: Path, most: int = 100) -> list[Row]:
    """Return rows from the beginning of the file: those within the first megabyte, or nothing if it cannot be read."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        try:
            file = open_parquet(path)
            check_parquet(path, file.metadata, file.schema_arrow.names)
            batch = next(file.iter_batches(batch_size=most), None)
            return list(batch.to_pylist()) if batch is not None else []
        except (OSError, ValueError, NotImplementedError, ArithmeticError, LookupError, ValidationError):
            return []
    try:
        text = read_start(path, MOST_OF_LINE).decode(ENCODING, "replace")
        lines = text.splitlines(keepends=True)[: most + 1]
        if len(text) == MOST_OF_LINE:
            lines = lines[:-1]  # it may be cut
        if suffix == ".jsonl":
            rows = [json.loads(line) for line in lines if line.strip()]
            return [row for row in rows if isinstance(row, dict)]
        return [
            {name: value for name, value in row.items() if isinstance(name, str)}
            for row in csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",")
        ]
    except (OSError, ValueError, RecursionError, csv.Error):
        return []


def _jsonl(path: Path, columns: Sequence[str]) -> Sequence[Row]:
    rows: list[Row] = []
    values: dict[str, list[Any]] = {name: [] for name in columns}
    with path.open(encoding=ENCODING) as file:
        for number, line in enumerate(_lines(path, file), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line) if len(line) < LONG_LINE else parse_json(line)
            except TooManyValuesError as cause:
                raise ValidationError(f"{path}:{number}: {cause}", hint="a row holds one example") from cause
            except (ValueError, RecursionError) as cause:
                raise ValidationError(f"{path}:{number}: not JSON: {cause}") from cause
            if not isinstance(row, dict):
                raise ValidationError(f"{path}:{number}: a row is a JSON object, not {with_article(row)}")
            if len(row) > MOST_COLUMNS:
                raise ValidationError(f"{path}:{number}: has {len(row)} columns, at most {MOST_COLUMNS} are read")
            if not columns:
                rows.append(row)
                continue
            if not values[columns[0]] and not values.keys() <= row.keys():
                return [row]  # whose names the message shows
            for name, known in values.items():
                known.append(row.get(name))
    return Columns(values) if columns else rows


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """The lines of a file with their ends. Raises ValidationError for one that is no row of anything."""
    number = blank = 0
    while line := file.readline(LONGEST):
        number += 1
        if len(line) == LONGEST:
            raise ValidationError(f"{path}:{number}: a line of more than {LONGEST - 1:,} characters")
        blank = blank + 1 if line in BLANK else 0
        if blank > MOST_BLANK:
            raise ValidationError(f"{path}:{number}: more than {MOST_BLANK:,} blank lines, one after the other")
        yield line


def _csv(path: Path, columns: Sequence[str]) -> Sequence[Row]:
    return _separated(path, columns)


def _tsv(path: Path, columns: Sequence[str]) -> Sequence[Row]:
    """Tabs separate. A quotation mark is text, as in the files of GLUE, unless a writer of csv put them all."""
    quoting = csv.QUOTE_MINIMAL if _is_quoted(path) else csv.QUOTE_NONE
    return _separated(path, columns, delimiter="\t", quoting=quoting)


def _is_quoted(path: Path) -> bool:
    """Whether a file is what the writer of csv writes with tabs, with quotation marks where they are needed.

    Plain texts with marks are written in another way. Two marks rows apart enclose a tab, which no quoted text may.
    """
    csv.field_size_limit(LONGEST)
    read: list[str] = []
    columns = 0
    with path.open(encoding=ENCODING, newline="") as file:
        reader = csv.reader(_noted(_lines(path, file), read), delimiter="\t")
        try:
            for fields in reader:
                line = "".join(read).rstrip("\r\n")
                read.clear()
                columns = columns or len(fields)
                if '"' in line and (_written(fields) != line or len(fields) != columns or "\t" in "".join(fields)):
                    return False
        except (csv.Error, ValidationError):
            return False
    return True


def _noted(lines: Iterator[str], read: list[str]) -> Iterator[str]:
    for line in lines:
        read.append(line)
        yield line


def _written(fields: Sequence[str]) -> str:
    """Return the line that `csv.writer`, pandas and datasets write, without its end."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerow(fields)
    return text.getvalue()[:-1]


def _separated(path: Path, columns: Sequence[str], **format_: Any) -> Sequence[Row]:
    csv.field_size_limit(LONGEST)
    with path.open(encoding=ENCODING, newline="") as file:
        reader = csv.reader(_lines(path, file), **format_)
        header = next(reader, [])
        if len(header) > MOST_COLUMNS:
            raise ValidationError(f"{path}: has {len(header)} columns, at most {MOST_COLUMNS} are read")
        if len(set(header)) != len(header):
            raise ValidationError(
                f"{path}: has the column {max(header, key=header.count)!r} twice", hint="rename one of them"
            )
        chosen = [header.index(name) for name in dict.fromkeys(columns) if name in header]
        if len(chosen) < len(set(columns)) or not columns:
            chosen = list(range(len(header)))
        values: list[list[str]] = [[] for _ in chosen]
        for fields in reader:
            if len(fields) != len(header) and fields:
                raise ValidationError(
                    f"{path}:{reader.line_num}: has {len(fields)} fields, the header has {len(header)}",
                    hint="quote fields that hold the separator",
                )
            if fields:
                for known, place in zip(values, chosen, strict=True):
                    known.append(fields[place])
        return Columns(dict(zip([header[place] for place in chosen], values, strict=True)))


def class_names(path: Path, column: str) -> list[str] | None:
    """Return the names that a parquet file of `datasets` gives to a column's numbers (its ClassLabel feature)."""
    if path.suffix.lower() != ".parquet":
        return None
    metadata = open_parquet(path).schema_arrow.metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _parquet(path: Path, columns: Sequence[str]) -> Sequence[Row]:
    """Rows with only the named columns. If the file lacks one, a single row with all names of the file."""
    names = columns_of(path) if columns else []
    if set(columns) - set(names) and names:
        return [dict.fromkeys(names)]
    return Columns(read_columns(path, columns))


READERS: dict[str, Callable[[Path, Sequence[str]], Sequence[Row]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
