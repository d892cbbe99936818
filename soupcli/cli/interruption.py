"""Ctrl-C and SIGTERM: the command ends within two seconds, whatever it is doing.

The signal is an exception in the main thread, which cleans up on its way out. Where that is not heard (a long call into
C, a thread that waits, the user's code that catches everything), a second thread, woken by the system itself, removes
what is unfinished and ends the process.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from soupcli.cli import console
from soupcli.leftovers import remove_all

PATIENCE = 1.2  # seconds that the main thread has
_told = threading.Event()


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C is a KeyboardInterrupt."""


def code_of(interrupt: KeyboardInterrupt) -> int:
    """128 and the number of the signal."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


def tell(code: int) -> None:
    """The one line that says how to go on."""
    word = "terminated" if code == 128 + signal.SIGTERM else "interrupted"
    _told.set()
    console.fail(f"{word}: what was evaluated is kept, the same command goes on from there")


@contextmanager
def heard() -> Iterator[None]:
    """While a command runs, both signals are heard; one that whoever started this process ignores stays ignored."""
    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    others = signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(woken,), name="interruption", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(others)
        signal.signal(signal.SIGTERM, before)
        os.close(waking)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _watch(woken: int) -> None:
    heard = {signal.SIGINT, signal.SIGTERM}
    while not heard.intersection(numbers := os.read(woken, 1)):
        if not numbers:
            os.close(woken)
            return
    time.sleep(PATIENCE)
    remove_all(patience=0.3)
    if not _told.is_set():
        console.show_cursor()
        tell(128 + numbers[0])
    os._exit(128 + numbers[0])
