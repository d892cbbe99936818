"""Files that gzip has packed are read within bounds."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from soupcli.files.gzip_files import read_unpacked, unpacked_name

if TYPE_CHECKING:
    from pathlib import Path


def test_packed(tmp_path: Path) -> None:
    """What is packed is unpacked, what is not is read as it is; neither may be larger than is asked for."""
    packed, plain = tmp_path / "a.json.gz", tmp_path / "b.json"
    packed.write_bytes(gzip.compress(b"0" * 1000))
    plain.write_bytes(b"0" * 1000)
    assert read_unpacked(packed, most=1000) == read_unpacked(plain, most=1000)
    for file in (packed, plain):
        with pytest.raises(OSError, match="has more than 999 bytes"):
            read_unpacked(file, most=999)
    packed.write_bytes(b"0" * 10)
    with pytest.raises(OSError, match="incorrect header"):
        read_unpacked(packed, most=1000)
    assert unpacked_name("a.json.gz") == "a.json"
