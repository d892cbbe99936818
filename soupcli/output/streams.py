"""The three streams of a process, of which the caller may have closed any, and others may write to any."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def open_streams() -> None:
    """Open stdin, stdout and stderr if the caller closed them. Otherwise a file gets their numbers, and our output.

    On stdout paths go through as they are, and no letter is an error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "replace")


def keep_stdout() -> None:
    """Keep stdout for the result alone: what native libraries and a user's processes write there goes to stderr."""
    stream = sys.stdout
    if stream is not sys.__stdout__ or not isinstance(stream, io.TextIOWrapper) or stream.fileno() != 1:
        return  # somebody reads what is written to sys.stdout, or it is kept already
    with contextlib.suppress(OSError):
        own = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = os.fdopen(own, "w", encoding=stream.encoding, errors=stream.errors)
