"""Names and numbers of numpy in files of pickle, joblib and `numpy.save`, as plain text and integers.

plain({"classes": <array of text>})                     # {"classes": ["cat", "dog"]}
read_npy(content)                                       # ["cat", "dog"]
read_pickle(content)                                    # {"classes_": ["cat", "dog"]} of a LabelEncoder

Nothing of a file is run, and numpy is not needed.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from typing import Any
from zipfile import BadZipFile, ZipFile

from soupcli.checkpoints.formats.pickles.machine import PickleError, budget_of
from soupcli.checkpoints.formats.pickles.pandas_objects import held_by_pandas
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn
from soupcli.checkpoints.formats.pickles.tensors import is_array
from soupcli.checkpoints.formats.pickles.unpickler import Unpickler
from soupcli.files.json_text import TooManyValuesError

DEEPEST = 4  # levels of an object that are made plain
MOST = 100_000  # entries of one
LONGEST = 4096  # bytes of a name
MOST_PLAIN = 300_000  # of all that are made plain: a vocabulary of 100,000 tokens lists them two or three times
NPY = b"\x93NUMPY"
DESCR = re.compile(rb"""\{ *'descr': *'([<>=|]?[A-Z]\d{0,6})'""")
PAIRS = re.compile(rb"'fortran_order': False, 'shape': \(\d+, 2\)")
TIMES = 20  # that the arrays in an archive may be longer unpacked
SCALAR = re.compile(r"numpy\.(_?core)\.multiarray\.scalar")
JOBLIB = re.compile(r"joblib\.numpy_pickle\.NumpyArrayWrapper")
REALS = {"f8": "d", "f4": "f", "f2": "e"}
NUMBERS = {**REALS, "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I", "u2": "H", "u1": "B"}
MOST_NUMBERS, MOST_COLUMNS = 2000, 20  # of an array that says which class is meant, and of a table
NumbersIn = Callable[[Any], "list[float] | None"]  # a small tensor
UNIT = {"U": 4, "S": 1}  # bytes of a character
UNITS = 10_000  # of a pickle's budget, for an array that is a pickle itself
DATA = "data"  # of an array that follows joblib's note of it


class _Joblib(Unpickler):
    """A reader of joblib's files, which hold an array's bytes behind its note in the pickle."""

    def built(self, value: StandIn) -> None:
        """Read the array that follows its note."""
        if not JOBLIB.fullmatch(value.full_name) or not isinstance(value.state, dict):
            return
        kind, shape = _kind_of(value.state.get("dtype")), value.state.get("shape") or ()
        if kind[0] == "O":
            self.spend(UNITS)
            outer = self._stack, self._marks, self._memo, self._far
            value.state[DATA] = self.load()
            self._stack, self._marks, self._memo, self._far = outer
            return
        if value.state.get("numpy_array_alignment_bytes") is not None:
            self.take(self.byte())
        size = int(kind[1:]) * UNIT.get(kind[0], 1)
        for length in shape if isinstance(shape, tuple) else ():
            if type(length) is not int or not 0 <= size <= self.longest_bytes:
                raise PickleError("the shape of an array is broken, or it is no list of classes")
            size *= length
        self.push_data(size, text=False, longest=self.longest_bytes)
        value.state[DATA] = self.pop()


def read_pickle(content: bytes) -> Any:
    """Return the object of a pickle or of joblib as plain values. Raises ValueError if it is broken."""
    try:
        read, size = (lambda at, count: content[at : at + count]), len(content)
        return plain(_Joblib(read, budget=budget_of(size), longest_bytes=size).load())
    except PickleError as cause:
        raise ValueError(str(cause)) from cause


def read_npy(content: bytes) -> Any:
    """Return the text of an array that `numpy.save` wrote, or None if it holds no text in one dimension or in pairs."""
    found = DESCR.match(content, 10)
    if not content.startswith(NPY + b"\1") or found is None:
        return None
    begin = int.from_bytes(content[8:10], "little") + 10
    data, kind, of_pairs = content[begin:], found[1].decode(), PAIRS.search(content, 10, begin) is not None
    return read_pickle(data) if kind == "|O" else _in_rows(_texts(kind, data), of_pairs=of_pairs)


def read_npz(content: bytes) -> dict[str, Any]:
    """Return the texts and numbers of the arrays in an archive of `numpy.savez` by their names.

    Arrays beyond what all may unpack to are left out.
    """
    room, found = len(content) * TIMES, {}
    try:
        with ZipFile(BytesIO(content)) as archive:
            for member in archive.infolist()[:MOST_COLUMNS]:
                if member.file_size <= room:
                    room -= member.file_size
                    found[member.filename.removesuffix(".npy")] = read_npy(archive.read(member))
    except (BadZipFile, NotImplementedError, EOFError, zlib.error, RuntimeError) as cause:
        raise ValueError(str(cause)) from cause
    return found


class _Room:
    """Counts entries that are made plain: a list may hold another one many times."""

    left = MOST_PLAIN

    def take(self, entries: int) -> None:
        """Raise TooManyValuesError if these are too many."""
        self.left -= entries
        if self.left < 0:
            raise TooManyValuesError(f"more than {MOST_PLAIN:,} entries")


def plain(value: Any) -> Any:
    """Return a pickled value with arrays of text as lists, scalars of numpy as text or numbers, objects as dicts.

    Raises ValueError if it has too many entries.
    """
    return _plain(value, 0, _Room())


def _plain(value: Any, depth: int, room: _Room) -> Any:
    if isinstance(value, StandIn):
        if is_array(value) or JOBLIB.fullmatch(value.full_name):
            inner = _only_object(value)
            return _array(value) if inner is None else _plain(inner, depth, room)
        said, inner = _scalar(value), held_by_pandas(value)
        if said is not value:
            return said
        if inner is not None and depth <= DEEPEST:
            return _plain(inner, depth + 1, room)
        value = dict(value.attributes) or (value.state if isinstance(value.state, tuple) else None)
    if depth > DEEPEST or not isinstance(value, dict | list | tuple):
        return _scalar(value) if isinstance(value, bytes) and len(value) <= LONGEST else value
    room.take(len(value))
    if isinstance(value, dict):
        return {_scalar(key): _plain(below, depth + 1, room) for key, below in value.items()}
    return [_plain(below, depth + 1, room) for below in value]


def _only_object(array: StandIn) -> Any:
    """Return the object in an array of none but it, such as the map that `numpy.save` was given, or None."""
    state = array.state if isinstance(array.state, tuple) and len(array.state) == 5 else (None,) * 5
    return state[4][0] if state[1] == () and isinstance(state[4], list) and len(state[4]) == 1 else None


def names_in(value: Any, numbers_in: NumbersIn | None = None) -> Any:
    """Return `value`, with bytes (flair's), and text and numbers of numpy in it, as plain ones.

    `numbers_in` returns the numbers of a small tensor, or None. Without it they stay as they are.
    """
    if isinstance(value, StandIn):
        return _array(value) if is_array(value) else value
    if isinstance(value, list | tuple) and value:
        first = value[0]
        if isinstance(first, StandIn | bytes):
            return [_item(one, numbers_in) for one in value[:MOST]]
        if isinstance(first, list | tuple) and any(isinstance(one, StandIn | bytes) for one in first):  # pairs
            return [[_item(one, numbers_in) for one in pair] for pair in value[:MOST] if isinstance(pair, list | tuple)]
    if isinstance(value, dict) and any(isinstance(one, StandIn | bytes) for one in _samples(value)):
        first = next(iter(value.values()))
        if isinstance(first, StandIn) and _item(first, numbers_in) is first:
            return value  # such as a state dict
        return {_item(key, numbers_in, key): _item(below, numbers_in) for key, below in value.items()}
    return value


def _samples(value: dict[Any, Any]) -> Iterator[Any]:
    """Yield keys and values that tell of which kind all are: of a table with few columns one of each."""
    yield from (
        one for pair in islice(value.items(), MOST_COLUMNS if len(value) <= MOST_COLUMNS else 1) for one in pair
    )


def _item(value: Any, numbers_in: NumbersIn | None, key: Any = None) -> Any:
    """Return what `_scalar` does, and the one number, or all, of a small array or tensor."""
    plain_value = _scalar(value)
    if plain_value is not value or not isinstance(value, StandIn):
        return plain_value
    numbers: Any = _array(value) if is_array(value) else None
    if numbers is None and numbers_in is not None:
        numbers = _numbers(value) if is_array(value) else numbers_in(value)
    if numbers is None or (key is not None and len(numbers) != 1):
        return value
    return numbers[0] if len(numbers) == 1 else numbers


def _numbers(value: StandIn) -> list[float] | None:
    """Return the numbers of a small pickled array in the order of memory, or None."""
    state = value.state if isinstance(value.state, tuple) and len(value.state) == 5 else (None,) * 5
    data, form = _bytes(state[4]), NUMBERS.get(_kind_of(state[2]))
    if data is None or form is None or not 0 < len(data) <= MOST_NUMBERS * struct.calcsize(form):
        return None
    count = len(data) // struct.calcsize(form)
    return list(struct.unpack_from(f"{_order_of(state[2])}{count}{form}", data))


def _array(value: StandIn) -> list[Any] | None:
    """Return the items of a pickled array of text in one dimension, the pairs of one with two columns, or None."""
    state = value.state
    if isinstance(state, dict):  # of joblib
        shape, kind, data = state.get("shape"), state.get("dtype"), state.get(DATA)
    elif isinstance(state, tuple) and len(state) == 5:
        _, shape, kind, by_column, data = state
        shape = shape if not by_column or not isinstance(shape, tuple) or len(shape) == 1 else None
    else:
        return None
    of_pairs = isinstance(shape, tuple) and len(shape) == 2 and shape[1] == 2
    if not of_pairs and (not isinstance(shape, tuple) or len(shape) != 1):
        return None
    if isinstance(data, StandIn) and is_array(data):
        return _array(data)
    if isinstance(data, list):
        items = list(map(_scalar, data))
        known = all(isinstance(item, str | int if of_pairs else str) for item in items)
        return _in_rows(items, of_pairs=of_pairs) if known else None
    data = _bytes(data)
    return _in_rows(_texts(_order_of(kind) + _kind_of(kind), data), of_pairs=of_pairs) if data is not None else None


def _in_rows(items: list[Any] | None, *, of_pairs: bool) -> list[Any] | None:
    return (
        items if items is None or not of_pairs else [list(pair) for pair in zip(items[::2], items[1::2], strict=False)]
    )


def _scalar(value: Any) -> Any:
    """Return the text or integer that bytes or a pickled scalar of numpy stand for, anything else as it is."""
    text = _bytes(value)
    if text is not None:
        return text.decode("utf-8", "backslashreplace")
    if not isinstance(value, StandIn) or not SCALAR.fullmatch(value.full_name):
        return value
    kind, data = (*_arguments(value), None, None)[:2]
    data, name = _bytes(data), _kind_of(kind)
    if data is None:
        return value
    if name[0] in "iu":
        return int.from_bytes(data, "big" if _order_of(kind) == ">" else "little", signed=name[0] == "i")
    found = _texts(_order_of(kind) + name, data)
    return found[0] if found else value


def numbers_of(value: StandIn) -> int | float | bytes | None:
    """Return the number of a pickled scalar of numpy, the bytes of a pickled array of numbers, or None."""
    if is_array(value):
        state = value.state if isinstance(value.state, tuple) and len(value.state) == 5 else (None,) * 5
        data = _bytes(state[4])
        return None if data is None else repr((state[1], _kind_of(state[2]))).encode() + data
    found = _scalar(value)
    if type(found) is int:
        return found
    kind, data = (*_arguments(value), None, None)[:2]
    data, form = _bytes(data), REALS.get(_kind_of(kind))
    if not SCALAR.fullmatch(value.full_name) or form is None or data is None or len(data) != struct.calcsize(form):
        return None
    return float(struct.unpack(_order_of(kind) + form, data)[0])


def _arguments(value: StandIn) -> tuple[Any, ...]:
    """Return what a pickle makes a value with; () for anything but a tuple, which only a stranger writes."""
    return value.args if isinstance(value.args, tuple) else ()


def _bytes(data: Any) -> bytes | None:
    """Return bytes of a pickle; before protocol 3 they are text that is encoded."""
    if isinstance(data, StandIn) and data.full_name == "_codecs.encode":
        data = next(iter(_arguments(data)), None)
        return data.encode("latin-1", "ignore") if isinstance(data, str) else None
    return data if isinstance(data, bytes) else None


def _kind_of(dtype: Any) -> str:
    """Return the kind of a pickled dtype and the bytes or characters of an item: U3, i8, O8; V0 if it says none."""
    name = next(iter(_arguments(dtype)), None) if isinstance(dtype, StandIn) else None
    return name if isinstance(name, str) and re.fullmatch(r"[a-zA-Z]\d{1,6}", name) else "V0"


def _order_of(dtype: Any) -> str:
    state = dtype.state if isinstance(dtype, StandIn) else None
    return ">" if isinstance(state, tuple) and state[1:2] == (">",) else "<"


def _texts(kind: str, data: bytes) -> list[str] | None:
    """Return the items of an array of text of a kind such as <U3, or None for other kinds and broken text."""
    found = re.fullmatch(r"([<>=|]?)([US])(\d{1,6})", kind)
    size = int(found[3]) * UNIT[found[2]] if found is not None else 0
    if found is None or not size or len(data) > MOST * size:
        return None
    encoding = "latin-1" if found[2] == "S" else "utf-32-be" if found[1] == ">" else "utf-32-le"
    try:
        return [data[at : at + size].decode(encoding).rstrip("\0") for at in range(0, len(data), size)]
    except UnicodeDecodeError:
        return None
