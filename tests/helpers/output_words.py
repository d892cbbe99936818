"""Commands as pages and recipes show them, held against the commands and flags that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer.main

from soupcli.cli.app import COMMANDS, app_of

GROUP: Any = typer.main.get_command(app_of(*COMMANDS))
STARTERS = ("soup", "python", "torchrun", "srun")


def unknown_words(line: str) -> Iterator[str]:
    """A sentence for each command of `soup` in a line of shell that there is not, and for each flag of one."""
    for part in re.split(r"\s*(?:\||&&|;|\$\()\s*", line):
        words = part.rstrip(")").split()
        started = next((place for place, word in enumerate(words) if word in ("soup", "soupcli")), None)
        if started is None or words[0] not in STARTERS or len(words) == started + 1:
            continue
        name, rest = words[started + 1], words[started + 2 :]
        if name.startswith("-"):
            continue
        if name not in GROUP.commands:
            yield f"soup has no command {name!r}"
            continue
        params = GROUP.commands[name].params
        known = {option for param in params for option in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
        for word in rest:
            if re.match(r"-\D", word) and word.partition("=")[0] not in known:
                yield f"soup {name} has no {word}"
