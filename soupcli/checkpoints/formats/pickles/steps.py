"""Every instruction of a pickle, protocols 0 to 5, as a step of a Machine.

Format: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.formats.pickles.machine import LONGEST, Machine, PickleError
from soupcli.checkpoints.formats.pickles.stand_ins import Global, StandIn, call, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[Machine], object]

# A text of protocol 0 as Python 2's repr() writes it.
QUOTED = re.compile(rb"""(['"])([^\\]|\\[\\'"nrt]|\\x[0-9a-f]{2})*\1""")


def _add_entries(machine: Machine, values: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, StandIn):
        target.entries = target.entries if target.entries is not None else {}
        target = target.entries
    machine.spend(16 * len(values))
    keys, held = values[::2], values[1::2]
    if len(keys) == len(held) and set(map(type, keys)) == {str}:  # as in vocabularies: a third of the time
        target.update(zip(keys, held, strict=True))
        return
    for key, value in zip(keys, held, strict=True):
        target[key_of(key)] = value


def _add_items(machine: Machine, values: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, StandIn):
        target.items = target.items if target.items is not None else []
        target = target.items
    target.extend(values)


def _add_members(machine: Machine) -> None:
    values = machine.since_mark()
    machine.spend(64 * len(values))
    machine.top().update(key_of(value) for value in values)


def _append(machine: Machine) -> None:
    value = machine.pop()
    _add_items(machine, [value])


def _append_all(machine: Machine) -> None:
    values = machine.since_mark()
    _add_items(machine, values)


def _set_entry(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _add_entries(machine, [key, value])


def _set_entries(machine: Machine) -> None:
    values = machine.since_mark()
    _add_entries(machine, values)


def _dict_since_mark(machine: Machine) -> None:
    values = machine.since_mark()
    machine.push({})
    _add_entries(machine, values)


def _build(machine: Machine) -> None:
    """Gives the object its state. Attributes of plain containers are nobody's weights."""
    state = machine.pop()
    target = machine.top()
    if isinstance(target, StandIn):
        target.state = state
        machine.built(target)


def _reduce(machine: Machine) -> None:
    args = machine.pop()
    machine.push(call(machine.pop(), args, machine.spend))


def _new_object(machine: Machine) -> None:
    args = machine.pop()
    machine.push(StandIn(machine.pop(), args))


def _new_object_with_names(machine: Machine) -> None:
    names = machine.pop()
    args = machine.pop()
    machine.push(StandIn(machine.pop(), (args, names)))


def _old_object(machine: Machine) -> None:
    made_by, *args = machine.since_mark()
    machine.push(StandIn(made_by, tuple(args)))


def _old_instance(machine: Machine) -> None:
    made_by = Global(machine.line().decode(), machine.line().decode())
    machine.push(StandIn(made_by, tuple(machine.since_mark())))


def _global(machine: Machine) -> None:
    machine.push(Global(machine.line().decode(), machine.line().decode()))


def _global_from_stack(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise PickleError("the name of a class is no text")
    machine.push(Global(module, name))


def _extension(form: Struct) -> Step:
    """A class by its number in a registry of the process that wrote the pickle."""
    return lambda machine: machine.push(Global("copyreg", f"extension {machine.number(form)}"))


def _tuple_of(count: int) -> Step:
    def step(machine: Machine) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))

    return step


def _constant(value: Any) -> Step:
    return lambda machine: machine.push(value)


def _number(form: Struct) -> Step:
    return lambda machine: machine.push(machine.number(form))


def _text(form: Struct) -> Step:
    return lambda machine: machine.push_data(machine.number(form), text=True)


def _bytes(form: Struct) -> Step:
    return lambda machine: machine.push_data(machine.number(form), text=False, longest=machine.longest_bytes)


def _python2_text(form: Struct) -> Step:
    """A byte string of Python 2, which was its text."""

    def step(machine: Machine) -> None:
        count = machine.number(form)
        machine.push_data(count, text=False)
        if count <= LONGEST:
            machine.push(_decoded(machine.pop()))

    return step


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _integer(form: Struct) -> Step:
    def step(machine: Machine) -> None:
        count = machine.number(form)
        if count > LONGEST:
            raise PickleError("a number of the pickle is too long")
        machine.push(int.from_bytes(machine.take(count), "little", signed=True))

    return step


def _integer_line(machine: Machine) -> None:
    line = machine.line()
    machine.push(line == b"01" if line in (b"00", b"01") else int(line.rstrip(b"L")))


def _quoted_line(machine: Machine) -> None:
    line = machine.line().strip()
    if not QUOTED.fullmatch(line):
        raise PickleError("a text of the pickle is not quoted as it should be")
    machine.push(_decoded(line[1:-1].decode("unicode_escape").encode("latin-1")))


def _empty(kind: type) -> Step:
    return lambda machine: machine.push(kind())


def _frozen_set(machine: Machine) -> None:
    machine.push({key_of(value) for value in machine.since_mark()})


def _buffer_elsewhere(_: Machine) -> None:
    raise PickleError("the data of its objects lie outside the pickle")


STOP = ord(".")
BYTE, SHORT, SIGNED, UNSIGNED, LONG, DOUBLE = map(Struct, ("<B", "<H", "<i", "<I", "<Q", ">d"))
STEPS: dict[int, Step] = {
    ord("("): Machine.mark,
    ord("0"): Machine.discard,
    ord("1"): lambda machine: machine.spend(len(machine.since_mark())),
    ord("2"): lambda machine: machine.push(machine.top()),
    ord("F"): lambda machine: machine.push(float(machine.line())),
    ord("I"): _integer_line,
    ord("L"): _integer_line,
    ord("J"): _number(SIGNED),
    ord("K"): lambda machine: machine.push(machine.byte()),
    ord("M"): _number(SHORT),
    ord("G"): _number(DOUBLE),
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    0x8A: _integer(BYTE),
    0x8B: _integer(UNSIGNED),
    ord("P"): lambda machine: machine.push_reference(machine.line().decode()),
    ord("Q"): lambda machine: machine.push_reference(machine.pop()),
    ord("S"): _quoted_line,
    ord("T"): _python2_text(SIGNED),
    ord("U"): _python2_text(BYTE),
    ord("V"): lambda machine: machine.push(machine.line().decode("raw_unicode_escape")),
    ord("X"): _text(UNSIGNED),
    0x8C: _text(BYTE),
    0x8D: _text(LONG),
    ord("B"): _bytes(UNSIGNED),
    ord("C"): _bytes(BYTE),
    0x8E: _bytes(LONG),
    0x96: _bytes(LONG),
    ord("]"): _empty(list),
    ord("}"): _empty(dict),
    ord(")"): _constant(()),
    0x8F: _empty(set),
    ord("a"): _append,
    ord("e"): _append_all,
    ord("s"): _set_entry,
    ord("u"): _set_entries,
    0x90: _add_members,
    0x91: _frozen_set,
    ord("d"): _dict_since_mark,
    ord("l"): lambda machine: machine.push(machine.since_mark()),
    ord("t"): lambda machine: machine.push(tuple(machine.since_mark())),
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    ord("c"): _global,
    0x93: _global_from_stack,
    0x82: _extension(BYTE),
    0x83: _extension(SHORT),
    0x84: _extension(SIGNED),
    ord("R"): _reduce,
    0x81: _new_object,
    0x92: _new_object_with_names,
    ord("o"): _old_object,
    ord("i"): _old_instance,
    ord("b"): _build,
    ord("g"): lambda machine: machine.recall(int(machine.line())),
    ord("h"): lambda machine: machine.recall(machine.byte()),
    ord("j"): lambda machine: machine.recall(machine.number(UNSIGNED)),
    ord("p"): lambda machine: machine.remember(int(machine.line())),
    ord("q"): lambda machine: machine.remember(machine.byte()),
    ord("r"): lambda machine: machine.remember(machine.number(UNSIGNED)),
    0x94: Machine.remember_next,
    0x80: lambda machine: machine.byte(),
    0x95: lambda machine: machine.number(LONG),
    0x97: _buffer_elsewhere,
    0x98: lambda _: None,
}
_STEP = 45  # units of any step
_DEAR = {"]": 80, "}": 85, "R": 200, "b": 24, "c": 250, "d": 80, "G": 32, "F": 32, "J": 5, "M": -15, "L": 60, "I": 60}
_DEAR |= {"\x8f": 300, "\x91": 300, "\x93": 220, "\x81": 150, "\x92": 150, "o": 150, "i": 300, "Q": 60, "P": 120}
_DEAR |= {"X": 85, "\x8c": 85, "\x8d": 55, "B": 56, "C": 56, "T": 56, "U": 56, "S": 90, "V": 90, "(": 80, "t": 56}
_DEAR |= {"q": -20, "r": 0, "\x94": -20, "p": 40, "g": 40, "\x85": 200, "\x86": 110, "\x87": 300}
COSTS = {code: _STEP + _DEAR.get(chr(code), 0) for code in STEPS}
