"""The state of a reader of pickles: a stack, a memo, a window into the file, and a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.formats.pickles.stand_ins import Payload, PersistentId

if TYPE_CHECKING:
    from collections.abc import Callable
    from struct import Struct

    from soupcli.checkpoints.formats.pickles.stand_ins import StandIn

    Read = Callable[[int, int], bytes]

WINDOW = 1 << 18  # bytes that are read at once
LONGEST = 1 << 16  # bytes of a text or byte string that is kept; longer ones stay in the file
LONGEST_LINE = 4096  # of protocol 0


class Budget(NamedTuple):
    """What a pickle may take: a unit is about a byte of objects or ten nanoseconds, whichever is more."""

    steps: int = 36_000_000  # for anything
    data: int = 0  # besides, for what checkpoints hold much of: words, numbers, storages of tensors


BUDGET = Budget()
STEPS_PER_BYTE, MOST_FOR_STEPS = 4, 24_000_000
DATA_PER_BYTE, MOST_FOR_DATA = 16, 90_000_000
STORAGE = 3_000  # what is read of one tensor, with its share of an optimizer


def budget_of(size: int) -> Budget:
    """Returns the budget of a pickle of `size` bytes: a vocabulary of half a million words takes what it may."""
    steps = BUDGET.steps + min(STEPS_PER_BYTE * size, MOST_FOR_STEPS)
    return Budget(steps, min(DATA_PER_BYTE * size, MOST_FOR_DATA))


class PickleError(Exception):
    """The pickle is broken, or would need more than its budget."""


class Machine:
    """The stack, the memo and the budget of a reader of pickles, and its position in the file."""

    def __init__(
        self,
        read: Read,
        *,
        offset: int = 0,
        budget: Budget = BUDGET,
        persistent: Callable[[Any], Any] = PersistentId,
        longest_bytes: int = LONGEST,
    ) -> None:
        self._read = read
        self.longest_bytes = longest_bytes  # of a byte string that is kept
        self._persistent = persistent
        self._most, self._data = budget
        self._left = self._most  # of the units for anything
        self._storages: set[Any] = set()  # keys of those that units were given for
        self._window = b""
        self._begin = offset  # of the window in the file
        self._at = 0  # in the window
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []  # stacks below the open marks
        self._memo: list[Any] = []  # by number, as picklers count
        self._far: dict[int, Any] = {}  # of the memo, under numbers that no pickler would give

    @property
    def at(self) -> int:
        """The position of the next byte in the file."""
        return self._begin + self._at

    def spend(self, units: int) -> None:
        """Takes `units` from the budget."""
        self._left -= units
        if self._left < 0:
            raise PickleError("its pickle takes too much memory or time beside the tensors")

    def spend_on_data(self, units: int) -> None:
        """Takes `units` from what is there for data, and what it lacks from the rest of the budget."""
        taken = min(units, self._data)
        self._data -= taken
        self.spend(units - taken)

    def grant(self, units: int) -> bool:
        """Moves `units` of those for data to those for any step, which never become more than at the beginning."""
        granted = self._left < self._most and self._data > 0
        if granted:
            self._data -= units
            self._left += units
        return granted

    def take(self, count: int) -> bytes:
        """Returns the next `count` bytes."""
        end = self._at + count
        if end > len(self._window):
            self._fill(count)
            end = self._at + count
        taken = self._window[self._at : end]
        self._at = end
        return taken

    def _fill(self, count: int) -> None:
        self._begin += self._at
        self._at = 0
        self._window = self._read(self._begin, max(count, WINDOW))
        if len(self._window) < count:
            raise PickleError("the pickle ends early")

    def byte(self) -> int:
        """Returns the next byte, as a number from 0 to 255."""
        at = self._at
        if at == len(self._window):
            self._fill(1)
            at = 0
        self._at = at + 1
        return self._window[at]

    def number(self, form: Struct) -> Any:
        """Returns the next number, in a form of struct."""
        if self._at + form.size > len(self._window):
            self._fill(form.size)
        (value,) = form.unpack_from(self._window, self._at)
        self._at += form.size
        return value

    def line(self) -> bytes:
        """Returns the bytes up to the next line feed."""
        while (end := self._window.find(b"\n", self._at)) < 0:
            held = len(self._window) - self._at
            if held > LONGEST_LINE:
                raise PickleError("a line of the pickle is too long")
            self._fill(held + 1)
        return self.take(end - self._at + 1)[:-1]

    def push(self, value: Any) -> None:
        """Puts `value` on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Takes the last value from the stack."""
        return self._stack.pop()

    def top(self) -> Any:
        """Returns the last value of the stack."""
        return self._stack[-1]

    def mark(self) -> None:
        """Begins a new part of the stack."""
        self._marks.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        """Returns all values since the last mark, and takes them and the mark away."""
        values = self._stack
        self._stack = self._marks.pop()
        self.spend(8 * len(values))
        return values

    def discard(self) -> None:
        """Takes the last value away, or the last mark if nothing follows it."""
        if self._stack:
            self._stack.pop()
        else:
            self._stack = self._marks.pop()

    def remember(self, index: int) -> None:
        """Puts the last value into the memo."""
        if index == len(self._memo):
            self._memo.append(self._stack[-1])
        elif 0 <= index < len(self._memo):
            self._memo[index] = self._stack[-1]
        else:
            self._far[index] = self._stack[-1]

    def remember_next(self) -> None:
        """Puts the last value into the memo, under the next number."""
        self.remember(len(self._memo) + len(self._far))

    def recall(self, index: int) -> None:
        """Pushes a value of the memo."""
        if 0 <= index < len(self._memo):
            self._stack.append(self._memo[index])
        elif index in self._far:
            self._stack.append(self._far[index])
        else:
            raise ValueError(index)

    def push_data(self, count: int, *, text: bool, longest: int = LONGEST) -> None:
        """Pushes the next `count` bytes or their text; a Payload if they are more than `longest`."""
        if count < 0:
            raise PickleError("a length in the pickle is negative")
        if count <= longest:
            self._left -= count  # the next step looks whether that was too much
            data = self.take(count)
            self._stack.append(data.decode("utf-8", "surrogatepass") if text else data)
            return
        self._stack.append(Payload(self.at, count, text))
        self._skip(count)

    def _skip(self, count: int) -> None:
        self._begin += self._at + count
        self._window, self._at = b"", 0

    def built(self, value: StandIn) -> None:
        """Takes what follows the state of an object in the file; nothing does in a plain pickle."""

    def push_reference(self, value: Any) -> None:
        """Pushes the object that a persistent identifier names; a storage brings units for the steps of its tensor."""
        key = value[2] if isinstance(value, tuple) and len(value) > 2 and value[0] == "storage" else None
        if isinstance(key, str | int) and key not in self._storages and self.grant(STORAGE):
            self._storages.add(key)
        self._stack.append(self._persistent(value))
