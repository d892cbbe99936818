"""Bytes of a text file as text, whichever program wrote it.

decoded("Kühe".encode("utf-16"))                        # "Kühe"
"""

from __future__ import annotations

import codecs
import re

MARKS = (  # at the beginning; that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # bytes that no text has


def decoded(content: bytes) -> str:
    """Return a text: by its mark, else as UTF-8, as UTF-16 without one, or with a letter of Windows for each byte.

    In another table of 256 letters these may be other ones, but equal names stay equal. Raises ValueError if the bytes
    are no text.
    """
    encoding = next((encoding for mark, encoding in MARKS if content.startswith(mark)), None)
    if encoding is None and 0 in content[:2] and any(content[:2]):
        encoding = "utf-16-le" if content[0] else "utf-16-be"
    if encoding is not None:
        return content.decode(encoding)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        if NO_TEXT.search(content):
            raise
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")
