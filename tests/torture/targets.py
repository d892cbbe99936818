"""What the fuzzers give a mutated file to: a reader, or a whole command."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from soupcli.cli.app import run


class Target(NamedTuple):
    """A reader: writes a mutated file, then what reads it. `silent`: a cache, which is passed over instead."""

    name: str
    write: Callable[[random.Random], None]
    read: Callable[[], int]
    silent: bool = False
    seconds: float = 1.0  # of processor time, at most
    words: tuple[str, ...] = ()  # of the command that reads it, which is started as a process now and then


def command(name: str, write: Callable[[random.Random], None], *words: str) -> Target:
    """A reader that is a command."""
    return Target(name, write, lambda: run(list(words)), words=words)
