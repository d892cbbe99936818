"""Rows of every format are the same rows, and errors name the line."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.datasets.rows import columns_of, first_rows, read_rows
from soupcli.errors import ValidationError

ROWS = [
    {"text": 'a "quoted", word', "label": "0"},
    {"text": "two\nlines\tand a tab", "label": "1"},
    {"text": "ünïcödé 漢字 🙂", "label": "1"},
    {"text": "", "label": "0"},
    {"text": "long " * 60_000, "label": "0"},
]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format of the file's name."""
    match file.suffix:
        case ".jsonl":
            file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        case ".csv":
            with file.open("w", newline="", encoding="utf-8") as lines:
                writer = csv.DictWriter(lines, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        case ".tsv":
            lines_ = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
            file.write_text("\n".join(lines_) + "\n", "utf-8")
        case _:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_any_text(suffix: str, tmp_path: Path) -> None:
    """Quotation marks, line ends, tabs, other scripts, empty and very long fields come back as they were."""
    assert list(read_rows(write(tmp_path / f"val{suffix}", ROWS), ["text", "label"])) == ROWS


def test_tsv_knows_no_quoting(tmp_path: Path) -> None:
    """In a tsv file a quotation mark is text, as in the files of GLUE."""
    rows = [{"text": '"a quote that does not end', "label": "1"}, {"text": "it's", "label": "0"}]
    assert list(read_rows(write(tmp_path / "val.tsv", rows), ["text", "label"])) == rows


def test_tsv_of_a_writer(tmp_path: Path) -> None:
    """A tsv file that pandas, datasets or csv wrote has its quotation marks taken off, and no other file."""
    rows = [{"text": 'he said "hi"', "label": "1"}, {"text": '"a"\nb', "label": "0"}, {"text": "it's", "label": "0"}]
    with (tmp_path / "val.tsv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    assert list(read_rows(tmp_path / "val.tsv", ["text", "label"])) == rows


@pytest.mark.parametrize(
    "texts",
    [
        ['"a whole text in marks"', "b"],
        ['"begins here', "b", 'and ends here"'],
        ['he said "hi"', '"he said ""hi"""'],
        ['""', "b"],
        ["b", '"'],
    ],
)
@pytest.mark.parametrize("labels_first", [True, False])
def test_tsv_of_plain_texts(texts: list[str], labels_first: bool, tmp_path: Path) -> None:
    """Marks that no writer of csv would have put are text, also two that enclose whole rows."""
    rows = [{"text": text, "label": "1"} for text in texts]
    rows = [dict(reversed(row.items())) for row in rows] if labels_first else rows
    assert list(read_rows(write(tmp_path / "val.tsv", rows), ["text", "label"])) == rows


def test_numbers(tmp_path: Path) -> None:
    """jsonl and parquet keep numbers as numbers, csv has text."""
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    assert list(read_rows(write(tmp_path / "val.jsonl", rows), [])) == rows
    assert list(read_rows(write(tmp_path / "val.parquet", rows), [])) == rows
    assert list(read_rows(write(tmp_path / "val.csv", rows), [])) == [
        {**row, "label": str(row["label"])} for row in rows
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries({"a": st.text("ab,\"'\n\r\t ü"), "b": st.text("xy ")}), min_size=1, max_size=5))
def test_csv_of_any_text(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    """What csv writes is read as it was written."""
    assert list(read_rows(write(tmp_path_factory.mktemp("csv") / "val.csv", rows), ["a", "b"])) == rows


def test_byte_order_mark_and_capitals(tmp_path: Path) -> None:
    """The mark that spreadsheets put first is no part of a column's name; a suffix may be in capitals."""
    (tmp_path / "val.CSV").write_bytes(b"\xef\xbb\xbftext,label\r\ngood,1\r\n\r\n")
    assert list(read_rows(tmp_path / "val.CSV", ["text", "label"])) == [{"text": "good", "label": "1"}]
    (tmp_path / "val.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "good"}\n\n')
    assert list(read_rows(tmp_path / "val.jsonl", ["text"])) == [{"text": "good"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("val.jsonl", b'{"text": 1}\n{"text"\n', r"val\.jsonl:2: not JSON"),
        ("val.jsonl", b"[1, 2]\n", r"val\.jsonl:1: a row is a JSON object, not a list"),
        ("val.jsonl", b"[" * 100_000, r"val\.jsonl:1: not JSON"),
        ("val.jsonl", b"\n\n", r"val\.jsonl: has no rows"),
        ("val.csv", b"", r"val\.csv: has no rows"),
        ("val.csv", b"text,label\n", r"val\.csv: has no rows"),
        ("val.csv", b"text,label\ngood,1\nbad, very,0\n", r"val\.csv:3: has 3 fields, the header has 2"),
        ("val.csv", b"text,text\ngood,1\n", r"val\.csv: has the column 'text' twice"),
        ("val.csv", b"text,label\n\xff\xfe,1\n", r"val\.csv: not UTF-8 at byte 11"),
        ("val.tsv", b"text\tlabel\ngood\n", r"val\.tsv:2: has 1 fields, the header has 2"),
        ("val.parquet", b"PAR0 and so on", r"val\.parquet: not a parquet file"),
        ("val.json", b"[]", r"val\.json: a text set is one of \.jsonl, \.csv, \.tsv, \.parquet"),
    ],
)
def test_errors(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    """What is no such file is an error that names it, and the line where there is one."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValidationError, match=message):
        read_rows(tmp_path / name, [])


def test_missing(tmp_path: Path) -> None:
    """A missing file is named; a missing column too, with the nearest one and all that there are."""
    with pytest.raises(ValidationError, match=r"nowhere\.csv: no such file"):
        read_rows(tmp_path / "nowhere.csv", [])
    with pytest.raises(ValidationError, match=r"has no column 'labels', did you mean 'label'\?") as raised:
        read_rows(write(tmp_path / "val.csv", ROWS), ["text", "labels"])
    assert str(raised.value.hint).startswith("its columns are text, label:")


def test_texts_that_rows_share(tmp_path: Path) -> None:
    """A text that many rows of a parquet file share is one object; a small file of very many rows is refused."""
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 1, 0, None]), pyarrow.array(["x" * 500, "y"]))
    pyarrow.parquet.write_table(pyarrow.table({"text": column, "n": [1, 2, 3, 4]}), tmp_path / "val.parquet")
    rows = read_rows(tmp_path / "val.parquet", ["text"])
    assert [row["text"] for row in rows] == ["x" * 500, "y", "x" * 500, None]
    assert rows[0]["text"] is rows[2]["text"]
    zeros = pyarrow.array(np.zeros(3_000_000, dtype="int32"))
    many = pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays(zeros, pyarrow.array(["x" * 1000]))})
    pyarrow.parquet.write_table(many, tmp_path / "many.parquet", compression="zstd")
    with pytest.raises(ValidationError, match=r"many\.parquet: \d+ bytes that unpack to \d+ in 3000000 rows"):
        read_rows(tmp_path / "many.parquet", ["text"])


def test_columns_of_lists_and_absent_ones(tmp_path: Path) -> None:
    """A column of lists is read as lists; one that the file lacks is named with those that it has."""
    rows = [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}]
    write(tmp_path / "val.parquet", rows)
    assert list(read_rows(tmp_path / "val.parquet", ["text", "labels"])) == rows
    with pytest.raises(ValidationError, match="has no column 'label', did you mean 'labels'"):
        read_rows(tmp_path / "val.parquet", ["text", "label"])


def test_very_many_columns(tmp_path: Path) -> None:
    """A csv file of more columns than a set has is refused, and of many only the first are named."""
    (tmp_path / "wide.csv").write_text(",".join(map(str, range(20_000))) + "\n")
    with pytest.raises(ValidationError, match=r"wide\.csv: has 20000 columns"):
        read_rows(tmp_path / "wide.csv", ["text"])
    (tmp_path / "val.csv").write_text(",".join(map(str, range(100))) + "\n" + "," * 99 + "\n")
    with pytest.raises(ValidationError, match=r"has no column 'text'") as refused:
        read_rows(tmp_path / "val.csv", ["text"])
    assert "18, 19 and 80 more:" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (json.dumps({f"{number}": 0 for number in range(10_001)}), "has 10001 columns, at most 10000 are read"),
        ('{"text":[' + "[]," * 1_000_000 + "[]]}", "holds 2,000,003 values, at most 1,000,000 are read"),
    ],
    ids=["keys", "values"],
)
def test_very_many_values_in_a_row(row: str, message: str, tmp_path: Path) -> None:
    """A row of more keys or values than an example has is refused with its line."""
    (tmp_path / "val.jsonl").write_text(f'{{"text": "a"}}\n{row}\n')
    with pytest.raises(ValidationError, match=rf"val\.jsonl:2: .*{message}"):
        read_rows(tmp_path / "val.jsonl", ["text"])


def test_very_many_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parquet file of more groups, or of a longer list of them, than a set has is refused before it is read."""
    table = pyarrow.table({"text": ["a"] * 9, "label": [0] * 9})
    path = tmp_path / "val.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=1)
    monkeypatch.setattr("soupcli.files.parquet.MOST_GROUPS", 9)
    assert len(read_rows(path, ["text"])) == 9
    monkeypatch.setattr("soupcli.files.parquet.MOST_GROUPS", 8)
    with pytest.raises(ValidationError, match=r"val\.parquet: has 9 row groups, at most 8 are read"):
        read_rows(path, ["text"])
    assert first_rows(path) == [] == columns_of(path)
    monkeypatch.setattr("soupcli.files.parquet.MOST_FOOTER", 100)
    with pytest.raises(ValidationError, match=r"val\.parquet: says in \d+ bytes where its parts lie, at most 100 "):
        read_rows(path, ["text"])


def test_values_that_python_lacks(tmp_path: Path) -> None:
    """Dates of far years, unknown time zones and two columns of a name: the file, the column, and why."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "x.parquet"
    far = {
        "timestamp": pyarrow.array([2**62], pyarrow.timestamp("us")),
        "date32": pyarrow.array([2**31 - 1], pyarrow.date32()),
        "no/zone": pyarrow.array([1], pyarrow.timestamp("us", tz="no/zone")),
    }
    for kind, column in far.items():
        parquet.write_table(pyarrow.table({"text": ["a"], "label": column}), file)
        with pytest.raises(ValidationError, match=rf"x\.parquet: column 'label' of .*{kind}.* cannot be read: "):
            read_rows(file, ["text", "label"])
        assert list(read_rows(file, ["text"])) == [{"text": "a"}] and first_rows(file) == []
    parquet.write_table(pyarrow.table([["a"], [1], [2]], names=["text", "label", "label"]), file)
    with pytest.raises(ValidationError, match=r"x\.parquet: has the column 'label' twice"):
        read_rows(file, ["text", "label"])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_blank_lines_without_end(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank lines are passed over, but not by the million: a file of nothing else is no data."""
    monkeypatch.setattr("soupcli.datasets.rows.MOST_BLANK", 3)
    row = "text\na\n" if suffix == ".csv" else '{"text": "a"}\n'
    file = tmp_path / f"rows{suffix}"
    file.write_text(row + "\n\n\n" + (row if suffix == ".jsonl" else "b\n") + "\n\n\n")
    assert len(read_rows(file, ["text"])) == 2
    file.write_text(row + "\n" * 4)
    with pytest.raises(ValidationError, match="more than 3 blank lines, one after the other"):
        read_rows(file, ["text"])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_other_columns_are_not_kept(suffix: str, tmp_path: Path) -> None:
    """Of very many rows those columns are in memory that are asked for, and no mapping for each row."""
    rows = [{"text": f"a sentence, number {number}", "note": "x" * 500, "label": str(number)} for number in range(2000)]
    file = write(tmp_path / f"val{suffix}", rows)
    read_rows(file, ["text", "label"])  # imports
    tracemalloc.start()
    found = read_rows(file, ["text", "label"])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[-1] == {"text": "a sentence, number 1999", "label": "1999"} and len(found[10:20]) == 10
    assert held < 200 * len(rows)


def test_values_that_rows_lack(tmp_path: Path) -> None:
    """A row of jsonl may lack what the first one has, or have more."""
    write(tmp_path / "x.jsonl", [{"text": "a", "label": 1}, {"text": "b"}, {"text": "c", "label": 0, "more": 2}])
    found = read_rows(tmp_path / "x.jsonl", ["text", "label"])
    assert [row["label"] for row in found] == [1, None, 0]
    with pytest.raises(ValidationError, match="has no column 'more'"):
        read_rows(tmp_path / "x.jsonl", ["text", "more"])
