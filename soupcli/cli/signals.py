"""Ctrl-C, SIGTERM and SIGHUP: the command ends within two seconds, whatever it is doing.

The signal is an exception in the main thread, which cleans up on its way out. If the main thread does not react (a long
call into C, a thread that waits, the user's code that catches everything), a second thread, woken by the system itself,
removes what is unfinished and ends the process. A second signal changes nothing: what the first began is finished.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from soupcli.files.unfinished import remove_all
from soupcli.output import console

PATIENCE = 1.2  # seconds that the main thread has
LAST_WORDS = 0.5  # and seconds more where it has begun to say how to go on
INTERRUPTED = 128 + signal.SIGINT
_telling = threading.Lock()
_told = threading.Event()
_raised: list[KeyboardInterrupt] = []  # by the first signal


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM and SIGHUP, as KeyboardInterrupt is raised by Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def code_of(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a signal: 128 plus its number."""
    return 128 + (interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT)


def begin() -> None:
    """Forget that an earlier command of this process was interrupted."""
    _told.clear()


def tell(code: int, *, patience: float = -1) -> None:
    """Print the one line that says how to go on. A second caller waits for it, at most `patience` seconds."""
    if not _telling.acquire(timeout=patience):
        return
    try:
        if not _told.is_set():
            word = "interrupted" if code == INTERRUPTED else "terminated"
            console.fail(f"{word}: what was evaluated is kept, the same command goes on from there")
            _told.set()
    finally:
        _telling.release()


@contextmanager
def handle_signals() -> Iterator[None]:
    """Handle these signals while the block runs. One that the caller ignores stays ignored, as under nohup."""
    ours = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {
        number: signal.signal(number, _end) for number, usual in ours.items() if signal.getsignal(number) == usual
    }
    _raised.clear()
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    others = signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    with contextlib.suppress(RuntimeError):  # the system allows no more: what it is needed for has to wait
        threading.Thread(target=_watch, args=(woken,), name="interruption", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(others)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(waking)


def _end(number: int, _frame: FrameType | None) -> None:
    """Raise an exception for the first signal only, so that a second one does not interrupt the clean-up."""
    if not _raised:
        _raised.append(KeyboardInterrupt() if number == signal.SIGINT else Terminated(number))
        raise _raised[0]


def raise_again() -> None:
    """Raise what a signal has raised, if any has: Typer makes an exit code of it while it reads the words."""
    for interrupt in _raised:
        raise interrupt


def _watch(woken: int) -> None:
    heard = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    while not heard.intersection(numbers := os.read(woken, 1)):
        if not numbers:
            os.close(woken)
            return
    time.sleep(PATIENCE)
    remove_all(patience=0.3)
    if not _told.is_set():
        console.show_cursor()
        tell(128 + numbers[0], patience=LAST_WORDS)
    os._exit(128 + numbers[0])
