"""A reader of pickles, protocols 0 to 5, that runs nothing: see stand_ins.py for what it returns.

    Unpickler(read).load()                              # read(offset, count) -> bytes

Each step of the pickle takes from a budget: a unit is about a byte of objects or ten nanoseconds, whichever is more. So
no pickle costs gigabytes or minutes. Long byte strings and texts are left in the file. No torch is needed.
"""

from __future__ import annotations

import struct
from typing import Any

from soupcli.checkpoints.formats.pickles.machine import Machine, PickleError
from soupcli.checkpoints.formats.pickles.steps import COSTS, STEPS, STOP


class Unpickler(Machine):
    """Reads one pickle after the other. `at` is the position after the last one."""

    def load(self) -> Any:
        """Returns the object that the pickle describes. Raises PickleError if it is broken or too expensive."""
        self._stack, self._marks, self._memo, self._far = [], [], [], {}
        steps, costs = STEPS, COSTS
        try:
            while True:
                if self._at == len(self._window):
                    self._fill(1)
                code = self._window[self._at]
                self._at += 1
                if code == STOP:
                    return self._stack.pop()
                self._left -= costs[code]
                if self._left < 0:
                    self.spend(0)
                steps[code](self)
        except KeyError as cause:
            raise PickleError(f"byte {self.at - 1} is no instruction of a pickle") from cause
        except (IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error) as cause:
            raise PickleError(f"the pickle is broken at byte {self.at - 1}") from cause
