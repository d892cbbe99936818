"""Which programs the user's code starts, and which of them nobody watches.

A Python that is watched notes its own words when it begins (see notes.py). What was started by words that none of
them has is not watched: other programs, `python -I`, a Python with an environment of its own, one that is too old.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from soupcli.user_code import notes
from soupcli.user_code.files import read_modules

LONGEST_SHOWN = 60  # letters


def unseen_programs() -> list[str]:
    """Names of the programs that the user's code starts and that are not watched: what they read is not seen."""
    started = [json.loads(words) for words in notes.of("program", read_modules())]
    running = [json.loads(words) for words in notes.every("running")]
    return sorted(
        {shown_program(words) for words in started if words and not any(_is_same(words, one) for one in running)}
    )


def _is_same(words: Sequence[str], running: Sequence[str]) -> bool:
    """Whether a Python is what was started: `./eval.py` runs as `python ./eval.py`, `env python x` as `python x`."""
    common = min(len(words), len(running))
    same = [*words[len(words) - common + 1 :]] == [*running[len(running) - common + 1 :]]
    return same and os.path.basename(words[-common]) == os.path.basename(running[-common])  # noqa: PTH119


def shown_program(words: Sequence[str]) -> str:
    """The name of a program without its folder; of a Python, the words that tell it from one that is watched."""
    name = os.path.basename(words[0]).split(" ")[0]  # noqa: PTH119
    if not name.startswith("python"):
        return name
    return " ".join([name, *words[1:3]])[:LONGEST_SHOWN].partition("\n")[0].rstrip()
