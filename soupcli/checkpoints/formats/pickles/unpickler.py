"""A reader of pickles, protocols 0 to 5, that runs nothing: see stand_ins.py for what it returns.

    Unpickler(read).load()                              # read(offset, count) -> bytes

Each step of the pickle takes from a budget: a unit is about a byte of objects or ten nanoseconds, whichever is more. So
no pickle costs gigabytes or minutes. Long byte strings and texts are left in the file. No torch is needed.
"""

from __future__ import annotations

import struct
from typing import Any

from soupcli.checkpoints.formats.pickles.machine import LONGEST, Machine, PickleError
from soupcli.checkpoints.formats.pickles.steps import COSTS, STEPS, STOP
from soupcli.late import collection_paused

LONGEST_SHORT = 9  # bytes of a step that is taken in place, without its text
GET, PUT, FAR_GET, FAR_PUT, TEXT, BYTE, SHORT, SIGNED, DOUBLE = b"hqjrXKMJG"
SHORT_TEXT, PUT_NEXT = b"\x8c\x94"
CONSTANTS = {ord("N"): None, 0x88: True, 0x89: False, ord(")"): ()}
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
        far = self._far
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
            elif code == TEXT and (size := unsigned(window, at + 1)[0]) < min(end - at, LONGEST):
                following = at + 5 + size
                stack.append(window[at + 5 : following].decode("utf-8", "surrogatepass"))
                left -= size
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
                stack.append(window[at + 2 : following].decode("utf-8", "surrogatepass"))
                left -= size
            elif code == SIGNED:
                stack += signed(window, at + 1)
                following = at + 5
            elif code == DOUBLE:
                stack += double(window, at + 1)
                following = at + 9
            else:
                self._at, self._left = at, left
                code = self.byte()
                if code == STOP:
                    return
                steps[code](self)
                window, following, stack, left = self._window, self._at, self._stack, self._left
                end = len(window) - LONGEST_SHORT
            at = following
            left -= costs[code]
        self.spend(max(0, self._left - left))
