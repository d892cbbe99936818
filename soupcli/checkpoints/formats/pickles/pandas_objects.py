"""Texts in pickled objects of pandas: an index, such as a table's columns, a column, unique values, categories.

held_by_pandas(<pandas.core.indexes.base._new_Index>)   # what it keeps its values in, in the end ["cat", "dog"]

Since pandas 3 texts lie in arrays of Arrow: all of them one after the other, and where each begins
(arrow.apache.org/docs/format/Columnar.html, variable-size binary layout).
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

from soupcli.checkpoints.formats.pickles.stand_ins import Global, StandIn, bytes_of

INDEX = "pandas.core.indexes.base._new_Index"
OF_ARROW, OF_CHUNKS, TYPE = "pyarrow.lib._restore_array", "pyarrow.lib.chunked_array", "pyarrow.lib.type_for_alias"
OFFSETS = {"large_string": "q", "string": "i", "utf8": "i", "large_utf8": "q"}
MOST = 100_000  # texts


def held_by_pandas(value: StandIn) -> Any:
    """Return what a pickled object of pandas or Arrow keeps its values in, or its texts; None for any other."""
    name, args = value.full_name, value.args if isinstance(value.args, tuple) else ()
    if name == INDEX:
        return args[1].get("data") if len(args) == 2 and isinstance(args[1], dict) else None
    if name == OF_ARROW:
        return _texts_of_arrow(args[0]) if len(args) == 1 and isinstance(args[0], tuple) else None
    if name == OF_CHUNKS:
        chunks = args[0] if args and isinstance(args[0], list) else ()
        return chunks[0] if len(chunks) == 1 else None
    if not name.startswith("pandas."):
        return None
    if args and isinstance(args[0], Global) and args[0].name == "Categorical" and isinstance(value.state, tuple):
        kind = value.state[0] if value.state else None
        return kind.attributes.get("categories") if isinstance(kind, StandIn) else None
    blocks = value.attributes.get("_mgr")  # of a column
    state = blocks.state if isinstance(blocks, StandIn) else None
    if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], list) and len(state[1]) == 1:
        return state[1][0]
    return value.attributes.get("_pa_array")


def _texts_of_arrow(parts: tuple[Any, ...]) -> list[str] | None:
    """Return the texts of an array: its type, length, number of absent ones, offset and buffers are `parts`."""
    kind, length, absent, first, buffers = (*parts, None, None, None, None, None)[:5]
    args = kind.args if isinstance(kind, StandIn) and kind.full_name == TYPE else ()
    form = OFFSETS.get(str(args[0])) if isinstance(args, tuple) and args else None
    if form is None or absent != 0 or first != 0 or type(length) is not int or not 0 < length <= MOST:
        return None
    known = isinstance(buffers, list | tuple) and len(buffers) == 3
    places, texts = (_bytes_of_buffer(buffer) for buffer in buffers[1:]) if known else (None, None)
    if places is None or texts is None or len(places) < (length + 1) * struct.calcsize(form):
        return None
    ends = struct.unpack_from(f"<{length + 1}{form}", places)
    return [texts[begin:end].decode("utf-8", "replace") for begin, end in pairwise(ends)]


def _bytes_of_buffer(buffer: Any) -> bytes | None:
    if isinstance(buffer, StandIn) and isinstance(buffer.args, tuple) and len(buffer.args) == 1:
        content, _ = bytes_of(buffer.args[0])
        return bytes(content) if isinstance(content, bytes | bytearray) else None
    return None
