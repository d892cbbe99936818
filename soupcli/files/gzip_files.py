"""Files that gzip has packed, read as what they hold: PyKEEN's `relation_to_id.tsv.gz`.

read_unpacked(Path("labels.json.gz"), most=1000)        # b'["cat", "dog"]'
unpacked_name("labels.json.gz")                         # "labels.json"
"""

from __future__ import annotations

import errno
import zlib
from typing import TYPE_CHECKING

from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from pathlib import Path

GZIP = ".gz"
FORMAT = 16 + zlib.MAX_WBITS  # zlib's number for gzip


def unpacked_name(name: str) -> str:
    """Return the name of a file without the ending of gzip."""
    return name.removesuffix(GZIP)


def read_unpacked(path: Path, *, most: int) -> bytes:
    """Return the bytes of a small file, unpacked. Raises OSError for more than `most` bytes, packed or not."""
    content = read_small(path, most=most)
    if path.suffix != GZIP:
        return content
    try:
        found = zlib.decompressobj(FORMAT).decompress(content, most + 1)
    except zlib.error as cause:
        raise OSError(errno.EINVAL, str(cause), str(path)) from cause
    if len(found) > most:
        raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))
    return found
