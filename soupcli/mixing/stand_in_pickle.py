"""A pickle of plain containers and stand-ins, as they were read: no class is imported to write it.

data = pickled(described)                              # what pickle.load makes the same object of
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable
from typing import Any

from soupcli.checkpoints.formats.pickles.stand_ins import Global, StandIn
from soupcli.errors import MixError
from soupcli.wording import with_article

SIZES = frozenset({"size", "sizes", "offset", "offsets", "strides"})  # attributes that torch keeps as torch.Size


def pickled(value: Any) -> bytes:
    """The pickle of `value`, protocol 2. Raises MixError for what has no plain form."""
    return b"".join([pickle.PROTO, b"\x02", *_code(value), pickle.STOP])


def _code(value: Any) -> Iterable[bytes]:
    if value is None or isinstance(value, bool | int | float | str):
        yield _plain(value)
    elif isinstance(value, Global):
        yield b"c%s\n%s\n" % (value.module.encode(), value.name.encode())
    elif isinstance(value, StandIn):
        yield from _object(value)
    elif isinstance(value, tuple):
        yield from (pickle.MARK, *_all(value), pickle.TUPLE)
    elif isinstance(value, list):
        yield from (pickle.EMPTY_LIST, pickle.MARK, *_all(value), pickle.APPENDS)
    elif isinstance(value, dict):
        pairs = [part for pair in value.items() for part in pair]
        yield from (pickle.EMPTY_DICT, pickle.MARK, *_all(pairs), pickle.SETITEMS)
    else:
        raise MixError(f"{with_article(value)} cannot be written as it was")


def _all(values: Iterable[Any]) -> Iterable[bytes]:
    for value in values:
        yield from _code(value)


def _plain(value: Any) -> bytes:
    """The code of a value that the pickle module writes alike: without its header and its end."""
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    return pickle.dumps(value, protocol=2)[2:-1]


def _object(value: StandIn) -> Iterable[bytes]:
    """An object made anew by its class, then given its state and its items."""
    yield from _code(value.made_by)
    yield from _code(value.args)
    yield pickle.NEWOBJ if value.args == () and value.state is not None else pickle.REDUCE
    if value.items:
        yield from (pickle.MARK, *_all(value.items), pickle.APPENDS)
    if value.entries:
        pairs = [part for pair in value.entries.items() for part in pair]
        yield from (pickle.MARK, *_all(pairs), pickle.SETITEMS)
    if value.state is not None:
        state = value.state
        yield from _state(state) if isinstance(state, dict) else _code(state)
        yield pickle.BUILD


def _state(state: dict[Any, Any]) -> Iterable[bytes]:
    """The attributes of an object, with shapes as torch keeps them."""
    yield from (pickle.EMPTY_DICT, pickle.MARK)
    for name, value in state.items():
        yield from _code(name)
        is_size = name in SIZES and isinstance(value, tuple) and all(type(number) is int for number in value)
        yield from _code(StandIn(Global("torch", "Size"), (list(value),)) if is_size else value)
    yield pickle.SETITEMS
