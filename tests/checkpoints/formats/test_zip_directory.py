"""The directory of a zip archive is read as zipfile reads it, and refused before it costs much."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.checkpoints.formats import zip_directory
from soupcli.checkpoints.formats.zip_directory import BrokenZip, read_directory
from soupcli.files.reading import FileVersion


def archive(**options: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.comment = options.get("comment", b"")
        for number in range(3):
            made.writestr(f"a/data/{number}", b"x" * number)
        made.writestr("a/\xe9", b"yy", zipfile.ZIP_DEFLATED)
    return out.getvalue()


def read(folder: Path, data: bytes, *, before: int = 0, after: int = 0) -> list[zip_directory.Record]:
    path = folder / "a.zip"
    path.write_bytes(b"p" * before + data + b"s" * after)
    return read_directory(FileVersion.of(path), before, len(data))


@pytest.mark.parametrize("before", [0, 7])
@pytest.mark.parametrize("comment", [b"", b"a comment" * 9])
def test_as_zipfile_reads_it(tmp_path: Path, before: int, comment: bytes) -> None:
    """Names, methods, sizes and places, of an archive that is a part of a file, has a comment, or bytes before it."""
    data = archive(comment=comment)
    expected = [
        (one.filename, one.compress_type, one.file_size, one.header_offset)
        for one in zipfile.ZipFile(io.BytesIO(data)).infolist()
    ]
    assert read(tmp_path, data, before=before, after=before) == expected
    moved = read(tmp_path, b"12345" + data)
    assert [record.header for record in moved] == [5 + place for *_, place in expected]


def test_large_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 64-bit form, which zipfile writes above 4 GiB: with limits lowered, it writes it at once."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    data = archive()
    assert b"PK\6\6" in data
    assert [record.size for record in read(tmp_path, data)] == [0, 1, 2, 2]


def test_too_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of more records than a checkpoint has is refused by its last bytes."""
    monkeypatch.setattr(zip_directory, "MOST_RECORDS", 3)
    with pytest.raises(BrokenZip, match=r"4 records in .* bytes, at most 3 are read"):
        read(tmp_path, archive())


@settings(deadline=None, max_examples=100)
@given(at=st.integers(min_value=0), byte=st.integers(0, 255), cut=st.integers(0, 300))
def test_any_other_byte(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: int) -> None:
    """Whatever byte is another one, and wherever the archive is cut: records, or BrokenZip."""
    data = bytearray(archive())
    data[at % len(data)] = byte
    try:
        read(tmp_path_factory.getbasetemp(), bytes(data[: len(data) - cut]))
    except BrokenZip as refused:
        assert "\n" not in str(refused)
