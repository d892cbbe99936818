"""The entries of the dict that a pickle holds, and the pickle without some of them: its code is cut, nothing is run.

    entries = Entries.of(data)                             # None if the pickle holds no dict
    entries = Entries.of(data, "state.model")              # of `state` and `state.model` too: "state.optimizers", ...
    entries.names                                          # ["state_dict", "optimizer_states", ...]
    entries.without({"optimizer_states"})                  # the pickle of the rest, None if they share objects

A pickle is a program for a machine with a stack and a memo. What the rest recalls from the memo and the part that was
cut had put there is put there by the rest itself, if it is a name, a number or a text.
"""

from __future__ import annotations

import pickletools
import struct
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from soupcli.checkpoints.formats.beside_network import leads_to

PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
CONSTANT = frozenset(
    {
        *("GLOBAL", "STACK_GLOBAL", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINBYTES", "SHORT_BINBYTES", "MARK", "UNICODE"),
    }
)
MARK = "MARK"


class _Step(NamedTuple):
    """One instruction."""

    name: str
    argument: Any
    begin: int
    end: int
    memo: int | None = None  # what it puts or gets


class _Value(NamedTuple):
    """A value on the stack: the first of the steps that make it, and the text or tuple that it is, if it is one."""

    first: int
    value: Any = None


class Entry(NamedTuple):
    """A part of the program: steps `first` to `last` (without it) push a key and a value."""

    name: str
    first: int
    last: int
    value: int  # the first step that makes the value
    storages: frozenset[str] = frozenset()  # keys of the storages of its tensors
    is_none: bool = False


class Entries(NamedTuple):
    """The entries of a pickled dict, in order."""

    data: bytes
    steps: list[_Step]
    entries: list[Entry]
    puts: dict[int, tuple[int, int]]  # memo -> first and last step that make what it holds
    classes: dict[str, str]  # key of each storage -> its class: "torch HalfStorage"

    @classmethod
    def of(cls, data: bytes, key: str | None = None) -> Entries | None:
        """The entries of the dict that `data` pickles, None if it is another thing or not understood.

        Dicts on the way to the part at `key`, and that part, give their own entries, under names with dots.
        """
        try:
            reader = _Reader(data)
        except (ValueError, IndexError, KeyError, TypeError, struct.error, RecursionError):
            return None
        entries = reader.entries_to(key)
        return cls(data, reader.steps, entries, reader.puts, reader.classes) if entries else None

    @property
    def names(self) -> list[str]:
        """The keys of the dict."""
        return [entry.name for entry in self.entries]

    def without(self, names: Collection[str]) -> bytes | None:
        """The pickle without these entries; None if the rest shares objects with them."""
        cut = {step for entry in self.entries if entry.name in names for step in range(entry.first, entry.last)}
        lost = {memo: made for memo, made in self.puts.items() if made[1] in cut}
        out: list[bytes] = []
        for number, step in enumerate(self.steps):
            if number in cut or step.name == "FRAME":
                continue
            code = self._recalled(step, lost) if step.name in GETS and step.memo in lost else self._code(step)
            if code is None:
                return None
            out.append(code)
        return b"".join(out)

    def _recalled(self, step: _Step, lost: dict[int, tuple[int, int]]) -> bytes | None:
        """Code that makes what `step` recalls, and puts it into the memo again."""
        assert step.memo is not None
        first, last = lost.pop(step.memo)
        out: list[bytes] = []
        for inner in self.steps[first : last + 1]:
            if inner.name in GETS:
                code = self._recalled(inner, lost) if inner.memo in lost else self._code(inner)
            else:
                code = self._code(inner) if inner.name in CONSTANT or inner.name in PUTS else None
            if code is None:
                return None
            if inner.name in PUTS:
                lost.pop(inner.memo or 0, None)
            out.append(code)
        return b"".join(out)

    def _code(self, step: _Step) -> bytes:
        if step.name == "MEMOIZE":  # its number is how many there were before, which changes
            return b"r" + struct.pack("<I", step.memo)
        return self.data[step.begin : step.end]


class _Reader:
    """Follows the program with a stack of positions."""

    def __init__(self, data: bytes) -> None:
        self.steps: list[_Step] = []
        self.puts: dict[int, tuple[int, int]] = {}
        self.classes: dict[str, str] = {}
        self._stack: list[_Value | str] = []
        self._known: dict[int, Any] = {}
        self._storages: list[tuple[int, str]] = []  # in the order of their steps
        self._dicts: dict[int, list[Entry]] = {}  # by the first step that makes the dict
        self._outermost = -1
        for step, operation in self._steps_of(data):
            self.steps.append(step)
            self._follow(step, operation)

    def entries_to(self, key: str | None) -> list[Entry]:
        """See Entries.of."""
        return [entry._replace(storages=self._between(entry)) for entry in self._flat(self._outermost, "", key)]

    def _flat(self, first: int, above: str, key: str | None) -> Iterator[Entry]:
        for entry in self._dicts.get(first, ()):
            name = f"{above}{entry.name}"
            if leads_to(name, key) and entry.value in self._dicts:
                yield from self._flat(entry.value, f"{name}.", key)
            else:
                yield entry._replace(name=name)

    def _between(self, entry: Entry) -> frozenset[str]:
        """The storages of the steps of an entry."""
        begin, end = (bisect_left(self._storages, (at,)) for at in (entry.first, entry.last))
        return frozenset(key for _, key in self._storages[begin:end])

    def _steps_of(self, data: bytes) -> Iterator[tuple[_Step, Any]]:
        found = list(pickletools.genops(data))
        ends = [position for _, _, position in found[1:]] + [len(data)]
        memos = 0
        for (operation, argument, begin), end in zip(found, ends, strict=True):
            memo = memos if operation.name == "MEMOIZE" else argument if operation.name in PUTS | GETS else None
            memos += operation.name in PUTS
            memo = None if memo is None else int(memo)
            yield _Step(operation.name, argument, begin or 0, end or 0, memo), operation

    def _follow(self, step: _Step, operation: Any) -> None:
        number = len(self.steps) - 1
        if step.name in PUTS:
            top = self._top()
            self.puts[step.memo or 0] = (top.first, number)
            self._known[step.memo or 0] = top.value
        elif step.name in GETS:
            self._stack.append(_Value(number, self._known[step.memo or 0]))
        elif step.name == MARK:
            self._stack.append(MARK)
        elif step.name == "DUP":
            raise ValueError("a value that stands twice")
        else:
            self._apply(step, operation, number)

    def _apply(self, step: _Step, operation: Any, number: int) -> None:
        before = [kind.name for kind in operation.stack_before]
        taken: list[_Value] = []
        if "mark" in before:
            while (value := self._stack.pop()) != MARK:
                taken.append(value)  # type: ignore[arg-type]
            count = before.index("mark")
        else:
            count = len(before)
        below = [self._pop() for _ in range(count)][::-1]
        taken.reverse()
        if step.name in ("SETITEM", "SETITEMS"):
            self._add(below[0].first, taken or below[1:], number + (step.name == "SETITEM"))
            self._outermost = below[0].first if not self._stack else self._outermost
        values = [*below, *taken]
        first = values[0].first if values else number
        for _ in operation.stack_after:
            self._stack.append(_Value(first, self._value(step, values, number)))

    def _value(self, step: _Step, values: list[_Value], number: int) -> Any:
        if step.name.startswith("TUPLE"):
            return tuple(value.value for value in values)
        if step.name == "BINPERSID":
            found = values[0].value
            if isinstance(found, tuple) and len(found) >= 3 and isinstance(found[2], str):
                self._storages.append((number, found[2]))
                self.classes[found[2]] = str(found[1])
        return step.argument if isinstance(step.argument, str | int) else None

    def _add(self, dict_: int, items: list[_Value], end: int) -> None:
        bounds = [*(item.first for item in items[::2]), end]
        for key, value, first, last in zip(items[::2], items[1::2], bounds, bounds[1:], strict=False):
            is_none = self.steps[value.first].name == "NONE" and value.first + 1 == last
            entry = Entry(str(key.value), first, last, value.first, is_none=is_none)
            self._dicts.setdefault(dict_, []).append(entry)

    def _pop(self) -> _Value:
        value = self._stack.pop()
        if isinstance(value, str):
            raise ValueError("a mark where a value was expected")
        return value

    def _top(self) -> _Value:
        value = self._stack[-1]
        if isinstance(value, str):
            raise ValueError("a mark where a value was expected")
        return value


def with_classes(data: bytes, names: Mapping[str, str]) -> bytes:
    """A pickle that asks for other classes: `names` goes from "torch HalfStorage" to "torch FloatStorage"."""
    out: list[bytes] = []
    steps = list(pickletools.genops(data))
    ends = [position or 0 for _, _, position in steps[1:]] + [len(data)]
    for (operation, argument, begin), end in zip(steps, ends, strict=True):
        if operation.name == "FRAME":
            continue
        other = names.get(str(argument)) if operation.name == "GLOBAL" else None
        code = data[begin or 0 : end]
        out.append(code if other is None else b"c%s\n" % other.replace(" ", "\n").encode())
    return b"".join(out)
