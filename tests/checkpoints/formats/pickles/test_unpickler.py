"""The reader of pickles: the same values as pickle's for plain objects, inert stand-ins for others, and a budget."""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
import random
import resource
import struct
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.checkpoints.formats.pickles.machine import WINDOW, Budget, PickleError, budget_of
from soupcli.checkpoints.formats.pickles.stand_ins import Opaque, Payload, StandIn
from soupcli.checkpoints.formats.pickles.steps import COSTS, STEPS
from soupcli.checkpoints.formats.pickles.unpickler import Unpickler

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(data: bytes) -> Any:
    return Unpickler(lambda offset, count: data[offset : offset + count]).load()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers(-9, 9), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner, inner)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100)
@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS))
def test_plain_objects(value: object, protocol: int) -> None:
    """Numbers, texts and containers come out as pickle reads them, in every protocol."""
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers(protocol: int) -> None:
    """Ordered and default dicts are dicts, sets are sets, an object that holds itself is one."""
    ring: list[Any] = [1]
    ring.append(ring)
    value = [OrderedDict(a=1), defaultdict(list, b=[2]), {3, 4}, frozenset({5}), ring]
    found = load(pickle.dumps(value, protocol))
    assert found[:4] == [{"a": 1}, {"b": [2]}, {3, 4}, {5}]
    assert found[4][1] is found[4]


@pytest.mark.parametrize("protocol", range(3, 6))
def test_long_bytes_stay_in_the_file(protocol: int) -> None:
    """Data that is no name is not read: its place is kept."""
    long = bytes(range(256)) * 1000
    data = pickle.dumps(["a", long, "b"], protocol)
    name, payload, last = load(data)
    assert (name, last) == ("a", "b")
    assert isinstance(payload, Payload) and not payload.text
    assert data[payload.offset :][: payload.length] == long


class Thing:
    """An object with arguments, state and items of every kind."""

    def __init__(self, word: str) -> None:
        self.word = word


class Table(dict):  # type: ignore[type-arg]
    """A dict of the user's."""


class Row(list):  # type: ignore[type-arg]
    """A list of the user's."""


class Slotted:
    """An object with slots."""

    __slots__ = ("word",)

    word: str


@pytest.mark.parametrize("protocol", range(2, 6))
def test_stand_ins(protocol: int) -> None:
    """Objects keep their class's name, their attributes, entries and items."""
    slotted, table = Slotted(), Table(a=1)
    slotted.word = "s"
    table.note = "n"  # type: ignore[attr-defined]
    thing, table, row, slotted = load(pickle.dumps((Thing("t"), table, Row([1, 2]), slotted), protocol))
    assert all(isinstance(found, StandIn) for found in (thing, table, row, slotted))
    assert (thing.full_name, thing.attributes) == (f"{__name__}.Thing", {"word": "t"})
    assert (table.entries, table.attributes) == ({"a": 1}, {"note": "n"})
    assert row.items == [1, 2]
    assert slotted.attributes == {"word": "s"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_imported(protocol: int) -> None:
    """Whatever a pickle calls stays a name, in all instructions that could call it."""
    found = load(pickle.dumps([print, OSError("x"), range(3), complex(1, 2), (1).__add__], protocol))
    assert [type(one).__name__ for one in found] == ["Global", *["StandIn"] * 4]
    assert found[0].full_name == "builtins.print"


def test_python_2() -> None:
    """Pickles of Python 2: byte strings are texts, modules have their new names, old classes are stand-ins."""
    assert load(b"(S'a\\x41'\np0\nU\x01bT\x02\x00\x00\x00\xc3\xa4V\\u00e4\nt.") == ("aA", "b", "ä", "ä")
    found = load(b"(i__builtin__\nobject\np0\n(dp1\nS'x'\nI01\nsb.")
    assert (found.full_name, found.attributes) == ("builtins.object", {"x": True})
    assert load(b"(c__main__\nA\nI1\no.").full_name == "__main__.A"


def test_keys_are_hashed_at_once() -> None:
    """Keys whose hash takes long, or is the same for all, are kept as objects of their own."""
    data = pickle.dumps({(1, (2, 3)): 1, 2**80: 2, "a": 3, 5: 4})
    assert [type(key) for key in load(data)] == [Opaque, Opaque, str, int]
    same_hash = (number * (2**61 - 1) for number in range(20_000))
    many = b"\x80\x02}(" + b"".join(b"\x8a\x0a" + key.to_bytes(10, "little") + b"N" for key in same_hash) + b"u."
    began = time.process_time()
    assert len(load(many)) == 20_000
    assert time.process_time() - began < 2  # quadratic: minutes


def nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1) + b"."


BOMBS = {
    "bytearray": b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "bytes to come": b"\x80\x04\x8e" + struct.pack("<Q", 4_000_000_000) + b".",
    "bytearray to come": b"\x80\x05\x96" + struct.pack("<Q", 4_000_000_000) + b".",
    "text to come": b"\x80\x02X\xff\xff\xff\xff.",
    "integer to come": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "frame to come": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "memo": b"\x80\x02Nr\xff\xff\xff\xff.",
    "sets": b"\x80\x04" + b"\x8f" * 3_000_000 + b".",
    "steps": b"\x80\x02" + b"N0" * 5_000_000 + b"N.",
    "copies": b"\x80\x04(" + b"K\x01" * 10_000 + b"lq\x00" + b"c__builtin__\nlist\nh\x00\x85R" * 10_000 + b".",
    "no end": b"\x80\x04" + b"N" * 100,
    "backwards": b"\x80\x02T\xf0\xff\xff\xff.",
    "digits": b"L" + b"9" * 200_000 + b"L\n.",
    "line": b"S'" + b"a" * 3_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_few_bytes_cost_little(name: str) -> None:
    """A pickle that asks for gigabytes or minutes gets neither: it is refused, or read without them."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        load(BOMBS[name])
    except PickleError as refused:
        assert "\n" not in str(refused)
    assert time.process_time() - began < 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_a_large_vocabulary() -> None:
    """Half a million words with their numbers, as a user keeps them beside the weights, are within the budget."""
    words = {f"word{number}": number for number in range(500_000)}
    data = pickle.dumps({"vocab": words}, protocol=2)
    read = Unpickler(lambda offset, count: data[offset : offset + count], budget=budget_of(len(data)))
    assert read.load()["vocab"]["word499999"] == 499_999


@pytest.mark.parametrize("protocol", [2, 4])
def test_runs(protocol: int) -> None:
    """Numbers and constants in a row come out as they are, within windows and across them."""
    generator = random.Random(0)
    kinds = [None, True, False, (), 7, 300, 70_000, -5, 1.5, 1 << 40, "word", [1], (2.5, None)]
    values = [generator.choice(kinds) for _ in range(100_000)]
    assert load(pickle.dumps([values, tuple(values), values[:5]], protocol)) == [values, tuple(values), values[:5]]


def test_a_million_numbers() -> None:
    """A million numbers, as a record of losses may be, are within the budget."""
    data = pickle.dumps([number / 3 for number in range(1_000_000)], protocol=2)
    read = Unpickler(lambda offset, count: data[offset : offset + count], budget=budget_of(len(data)))
    assert len(read.load()) == 1_000_000


def test_many_tensors_in_a_file_without_records() -> None:
    """Each new storage brings what its tensor takes; one that is named again brings nothing."""
    tensor, key = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nU",
        b"X\x03\0\0\0cpuK\x01tQK\0))tR0",
    )

    def steps(names: list[bytes]) -> bool:
        data = b"\x80\x02" + b"".join(tensor + bytes([len(name)]) + name + key for name in names) + b"N."
        read = Unpickler(lambda offset, count: data[offset : offset + count], budget=Budget(1_000_000, 30_000_000))
        with contextlib.suppress(PickleError):
            return read.load() is None
        return False

    assert steps([b"%d" % at for at in range(5_000)])
    assert not steps([b"0"] * 20_000)


@pytest.mark.parametrize("step", [b"]", b"ca\nb\n)R"])
def test_what_no_checkpoint_has_much_of(step: bytes) -> None:
    """Lists and calls by the million are given up after 60 million units, however large the file is."""
    size = 20_000_000
    data = b"\x80\x02(" + step * (size // len(step)) + b"l."
    read = Unpickler(lambda offset, count: data[offset : offset + count], budget=budget_of(size))
    with pytest.raises(PickleError):
        read.load()
    assert read.at / len(step) < 60_000_000 / 100


def test_numbers_of_the_memo() -> None:
    """The memo is kept by number in any order, also where the numbers leave gaps."""
    assert load(b"\x80\x02(K\x05r\xff\xff\x00\x00K\x06q\x00K\x07q\x00j\xff\xff\x00\x00h\x00t.") == (5, 6, 7, 5, 7)
    with pytest.raises(PickleError):
        load(b"\x80\x02h\x00.")


def test_deep_nesting() -> None:
    """Objects that are nested deeper than Python's own recursion come out, and can be dropped."""
    found, depth = load(nested(200_000)), 0
    while found:
        [found] = found
        depth += 1
    assert depth == 199_999


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    """Whatever bytes are read, the answer is a value or a PickleError."""
    with contextlib.suppress(PickleError):
        load(data)


@settings(deadline=None, max_examples=300)
@given(steps=st.lists(st.sampled_from([*STEPS, ord(".")]), max_size=40), tail=st.binary(max_size=20))
def test_any_steps(steps: list[int], tail: bytes) -> None:
    """So it is for any order of instructions."""
    with contextlib.suppress(PickleError):
        load(bytes(steps) + tail)


def test_every_instruction_is_known() -> None:
    """Every instruction of pickle's own table has a step and a cost."""
    codes = {ord(opcode.code) for opcode in pickletools.opcodes} - {ord(".")}
    assert codes == set(STEPS) == set(COSTS)


def test_one_after_the_other() -> None:
    """Several pickles in one file are read one after the other; `at` is the place of the next."""
    stream = io.BytesIO()
    for number in range(3):
        pickle.dump({"n": number}, stream, protocol=number + 2)
    data = stream.getvalue() + b"rest"
    unpickler = Unpickler(lambda offset, count: data[offset : offset + count])
    assert [unpickler.load() for _ in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert data[unpickler.at :] == b"rest"


@pytest.mark.parametrize("protocol", [2, 4])
def test_across_windows(protocol: int) -> None:
    """Numbers and texts of every length come out as pickle reads them, also where the reader's window ends."""
    rng = random.Random(protocol)
    makers: tuple[Callable[[], object], ...] = (
        lambda: rng.randrange(-(2**31), 2**31),
        lambda: rng.randrange(70_000),
        rng.random,
        lambda: "é" * rng.randrange(6),
        lambda: "x" * rng.randrange(300),
    )
    values = [rng.choice(makers)() for _ in range(14_000)]
    words: dict[object, object] = {f"word{number}": value for number, value in enumerate(values[:3000])}
    words[7] = values
    data = pickle.dumps(words, protocol)
    assert len(data) > 2 * WINDOW
    assert load(data) == words
