"""Columns of parquet files, within bounds: a few bytes may say that they unpack to gigabytes.

read_columns(Path("dev.parquet"), ["label"])            # {"label": ["dog", "cat"]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soupcli.environment import import_extra
from soupcli.errors import ValidationError
from soupcli.files.small_file import read_end

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOST_UNPACKED, LONGEST = 200, 1 << 24  # bytes that one byte of a file unpacks to, and further ones
MOST_VALUES, MOST_REPEATED = 1_000_000, 4  # of a column, and further ones for each byte
MOST_FOOTER, MOST_GROUPS = 1 << 24, 10_000  # `datasets` writes a group for each thousand rows, or hundred pictures
FEWER_GROUPS = "write it again with larger groups: pyarrow.parquet.write_table(table, FILE, row_group_size=10_000)"


def open_parquet(path: Path) -> Any:
    """Open a parquet file. Raises ValidationError if what it says of its parts is more than a set of examples has."""
    parquet = import_extra("pyarrow.parquet", extra="parquet")
    end = read_end(path, 8)  # how long the footer is, and PAR1
    length = int.from_bytes(end[:4], "little")
    if end[4:] == b"PAR1" and MOST_FOOTER < length < path.stat().st_size:
        raise ValidationError(
            f"{path}: says in {length} bytes where its parts lie, at most {MOST_FOOTER} are read", hint=FEWER_GROUPS
        )
    file = parquet.ParquetFile(path)
    if file.metadata.num_row_groups > MOST_GROUPS:
        raise ValidationError(
            f"{path}: has {file.metadata.num_row_groups} row groups, at most {MOST_GROUPS} are read", hint=FEWER_GROUPS
        )
    return file


def read_columns(path: Path, columns: Sequence[str] = (), *, most: int | None = None) -> dict[str, list[Any]]:
    """Return the values of the named columns that the file has, or of all of them.

    Raises ValidationError if it is broken, would unpack to a huge size, or has more than `most` values in all.
    """
    parquet = import_extra("pyarrow.parquet", extra="parquet")
    try:
        file = open_parquet(path)
        names = file.schema_arrow.names
        known = [name for name in dict.fromkeys(columns or names) if name in names]
        flat = {file.schema.column(place).path for place in range(len(file.schema))}.intersection(known)
        # A text that a million rows share is one text. Where the groups lie, of which there may be many, is read once.
        file = parquet.ParquetFile(path, metadata=file.metadata, read_dictionary=sorted(flat))
        for name in known:
            if names.count(name) > 1:
                raise ValidationError(f"{path}: has the column {name!r} twice", hint="rename one of them")
        check_parquet(path, file.metadata, known, most=most)
        table = file.read(columns=known)
        return {name: _values(path, name, table.column(name)) for name in known}
    except (ValueError, NotImplementedError) as cause:  # pyarrow.ArrowInvalid, ArrowNotImplementedError
        raise ValidationError(f"{path}: not a parquet file: {next(iter(str(cause).splitlines()), '')}") from cause


def _values(path: Path, name: str, column: Any) -> list[Any]:
    """Return the values of a column of a table; equal texts of a dictionary are one object.

    Raises ValidationError for those that Python has no object for, such as dates of far years and unknown time zones.
    """
    found: list[Any] = []
    try:
        for chunk in column.chunks:
            if hasattr(chunk, "dictionary"):
                words = chunk.dictionary.to_pylist()
                found += [None if place is None else words[place] for place in chunk.indices.to_pylist()]
            else:
                found += chunk.to_pylist()
    except (ValueError, ArithmeticError, LookupError) as cause:
        why = next(iter(str(cause).splitlines()), "")
        raise ValidationError(
            f"{path}: column {name!r} of {column.type} cannot be read: {why}", hint="store it as text or numbers"
        ) from cause
    return found


def check_parquet(path: Path, metadata: Any, columns: Sequence[str], *, most: int | None = None) -> None:
    """Raises ValidationError for a small file whose columns unpack to a huge size, or to more than `most` values."""
    unpacked = values = 0
    places = [at for at in range(metadata.num_columns) if metadata.schema.column(at).path.split(".")[0] in columns]
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        for part in map(group.column, places):
            unpacked, values = unpacked + part.total_uncompressed_size, values + part.num_values
    size = path.stat().st_size
    most_values = (MOST_VALUES + MOST_REPEATED * size) * max(1, len(columns)) if most is None else most
    if unpacked > MOST_UNPACKED * size + LONGEST or max(values, metadata.num_rows) > most_values:
        raise ValidationError(f"{path}: {size} bytes that unpack to {unpacked} in {metadata.num_rows} rows")
