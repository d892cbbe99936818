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
    codes: tuple[int, ...] = (0, 2)  # that it may end with


def command(name: str, write: Callable[[random.Random], None], *words: str) -> Target:
    """A reader that is a command. `verify` may say no."""
    codes = (0, 1, 2) if words[0] == "verify" else (0, 2)
    return Target(name, write, lambda: run(list(words)), words=words, codes=codes)
