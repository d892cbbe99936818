"""The mark of a soup in a file that is not safetensors: text that names its members, where no loader looks.

    members_at(file, place)                     # hashes of the members; place: of the record, or tail_of(file)

An archive of `torch.save` has it as a record of its own, other files behind their end. Safetensors has its metadata.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from soupcli.files.json_text import parse_json
from soupcli.files.reading import ByteRange, read_bytes

if TYPE_CHECKING:
    from soupcli.files.reading import FileVersion

RECORD = "extra/soup.json"  # in an archive, under its own name; TorchScript has its extra files there too
TAIL = struct.Struct("<Q8s")  # at the end of other files, after the text: its length, MAGIC
MAGIC = b"\nof soup"
LONGEST = 10_000_000  # bytes: a hundred thousand members


def tail_of(file: FileVersion) -> ByteRange | None:
    """Return the place of the text behind the end of a file, or None if there is none."""
    end = file.size - TAIL.size
    if end < 0:
        return None
    size, magic = TAIL.unpack(read_bytes(file, end, TAIL.size))
    return ByteRange(end - size, size) if magic == MAGIC and size <= min(end, LONGEST) else None


def members_at(file: FileVersion, place: ByteRange | None) -> tuple[str, ...]:
    """Return the hashes of a soup's members from the text at `place`, or nothing if there is none."""
    if place is None or place.size > LONGEST:
        return ()
    return members_in(read_bytes(file, *place).decode("utf-8", "replace"))


def members_in(text: str) -> tuple[str, ...]:
    """Return the hashes of a soup's members that the text names, or nothing if it is another text."""
    try:
        members = parse_json(text)["members"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(map(str, members)) if isinstance(members, list) else ()
