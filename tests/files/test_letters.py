"""Texts of any program as letters."""

from __future__ import annotations

import pytest

from soupcli.files.letters import decoded

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", ["K\u00fche\n\u00e9lan\n", "cat\ndog\n", "a"])
def test_encodings(text: str, encoding: str) -> None:
    """A text is the same whichever program has written it."""
    assert decoded(text.encode(encoding)) == text


def test_other_tables_of_letters() -> None:
    """Of a table that nothing names the letters are others, one for each byte, so equal names stay equal."""
    names = [name.encode("koi8-r") for name in ("\u043a\u043e\u0442", "\u043f\u0451\u0441")]
    found = decoded(b"\n".join(names)).split("\n")
    assert found == [decoded(name) for name in names] and len(set(found)) == 2
    assert len(decoded(bytes(range(0x80, 0x100)))) == 0x80


@pytest.mark.parametrize("content", [b"\xff\x01\x02\x03", b"\x00\x00\x80\x3f", b"\x80\x03]q\x00."])
def test_no_text(content: bytes) -> None:
    """Numbers and pickles are no text."""
    with pytest.raises(ValueError, match="can't decode"):
        decoded(content)


def test_empty() -> None:
    """An empty file is an empty text."""
    assert decoded(b"") == ""
