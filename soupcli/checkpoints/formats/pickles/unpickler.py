"""A reader of pickles, protocols 0 to 5, that runs nothing: see stand_ins.py for what it returns.

    Unpickler(read).load()                              # read(offset, count) -> bytes

Each step of the pickle takes from a budget, so no pickle costs gigabytes or minutes. Long byte strings and texts are
left in the file. No torch is needed.
"""

from __future__ import annotations

import pickle
import re
import struct
from typing import Any

from soupcli.checkpoints.formats.pickles.machine import LONGEST, Machine, PickleError
from soupcli.checkpoints.formats.pickles.steps import COSTS, STEPS, STOP
from soupcli.late import collection_paused

LONGEST_SHORT = 9  # bytes of a step that is taken in place, without its text
GET, PUT, FAR_GET, FAR_PUT, TEXT, BYTE, SHORT, SIGNED, DOUBLE = b"hqjrXKMJG"
SHORT_TEXT, PUT_NEXT = b"\x8c\x94"
CONSTANTS = {ord("N"): None, 0x88: True, 0x89: False, ord(")"): ()}
# Numbers and constants in a row, as in lists of them: Python's compiled reader takes them in a tenth of the time.
RUN = re.compile(rb"(?:[N\x88\x89)]|K.|M..|J.{4}|G.{8})++", re.DOTALL)
BEFORE_RUNS = frozenset(b"(N\x88\x89)KMJG")  # a mark, or one of them at the end of a window
VALUE = 72  # units of each value of a run
WORD = 220  # units for data that a word or a number brings: its own, and for the steps around it
unsigned, signed, double = (struct.Struct(form).unpack_from for form in ("<I", "<i", ">d"))


class Unpickler(Machine):
    """Reads one pickle after the other. `at` is the position after the last one."""

    def load(self) -> Any:
        """Returns the object that the pickle describes. Raises PickleError if it is broken or too expensive."""
        self._stack, self._marks, self._memo, self._far = [], [], [], {}
        try:
            with collection_paused():
                self._run()
                return self._stack.pop()
        except KeyError as cause:
            raise PickleError(f"byte {self.at - 1} is no instruction of a pickle") from cause
        except (IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error) as cause:
            raise PickleError(f"the pickle is broken at byte {self.at - 1}") from cause

    def _run(self) -> None:  # noqa: C901 - a call for each step would take twice the time
        """Take all steps up to the end of the pickle.

        Those of which most pickles mainly consist are taken here, as their rows of STEPS would, without a call.
        """
        steps, costs = STEPS, COSTS
        window, at, stack, memo, left = self._window, self._at, self._stack, self._memo, self._left
        far, data, most = self._far, self._data, self._most
        end = len(window) - LONGEST_SHORT
        while left >= 0:
            code = window[at] if at < end else STOP
            following = at + 2
            if code in CONSTANTS:
                stack.append(CONSTANTS[code])
                following = at + 1
            elif code == PUT and window[at + 1] == len(memo):
                memo.append(stack[-1])
            elif code == GET and window[at + 1] < len(memo):
                stack.append(memo[window[at + 1]])
            elif code == BYTE:
                stack.append(window[at + 1])
            elif code == TEXT and (size := unsigned(window, at + 1)[0]) < end - at and size < LONGEST:
                following = at + 5 + size
                stack.append(str(window[at + 5 : following], "utf-8", "surrogatepass"))
                left -= size
                if data > 0 and left < most:
                    data -= WORD
                    left += WORD
            elif code == FAR_PUT and unsigned(window, at + 1)[0] == len(memo):
                memo.append(stack[-1])
                following = at + 5
            elif code == FAR_GET and (index := unsigned(window, at + 1)[0]) < len(memo):
                stack.append(memo[index])
                following = at + 5
            elif code == SHORT:
                stack.append(window[at + 1] | window[at + 2] << 8)
                following = at + 3
            elif code == PUT_NEXT and not far:
                memo.append(stack[-1])
                following = at + 1
            elif code == SHORT_TEXT and (size := window[at + 1]) < end - at:
                following = at + 2 + size
                stack.append(str(window[at + 2 : following], "utf-8", "surrogatepass"))
                left -= size
                if data > 0 and left < most:
                    data -= WORD
                    left += WORD
            elif code == SIGNED:
                stack += signed(window, at + 1)
                following = at + 5
            elif code == DOUBLE:
                stack += double(window, at + 1)
                following = at + 9
                if data > 0 and left < most:
                    data -= WORD
                    left += WORD
            else:
                self._at, self._left, self._data = at, left, data
                code = self.byte()
                if code == STOP:
                    return
                steps[code](self)
                if code in BEFORE_RUNS:
                    self._take_run()
                window, following, stack = self._window, self._at, self._stack
                left, data = self._left, self._data
                end = len(window) - LONGEST_SHORT
            at = following
            left -= costs[code]
        self.spend(max(0, self._left - left))

    def _take_run(self) -> None:
        """Take the numbers and constants that come next in the window. Python's own reader can meet nothing else."""
        run = RUN.match(self._window, self._at)
        if run is not None:
            values = pickle.loads(b"(" + run[0] + b"l.")
            self._stack += values
            self._at = run.end()
            self.spend_on_data(VALUE * len(values))
