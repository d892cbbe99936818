"""Environment variables that begin with `SOUP_`: those that nothing reads are named, since they are mostly misspelt.

for text in unread(os.environ): console.warn(text)      # SOUP_CAHCE is set and nothing reads it, ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator
from typing import get_type_hints

from typer.models import OptionInfo

from soupcli.user_code.notes import PLACE, SINCE
from soupcli.wording import nearest

BEGINNING = "SOUP_"
# Variables that are no option's.
OTHERS = frozenset({"SOUP_CACHE", "SOUP_DEBUG", "SOUP_PROCESS_TIMEOUT", PLACE, SINCE})


def unread(names: Iterable[str]) -> list[str]:
    """Return a warning for each variable of ours that nothing reads, with the nearest that is read."""
    ours = sorted(name for name in names if name.startswith(BEGINNING) and name not in OTHERS)
    known = {*OTHERS, *_of_options()} if ours else OTHERS
    return [f"{name} is set and nothing reads it{_nearest(name, known)}" for name in ours if name not in known]


def _nearest(name: str, known: Collection[str]) -> str:
    near = nearest(name.removeprefix(BEGINNING), (one.removeprefix(BEGINNING) for one in sorted(known)))
    return f", did you mean {BEGINNING}{near}?" if near is not None else ""


def _of_options() -> Iterator[str]:
    """Yield the variables of all commands' options."""
    from soupcli.cli.options import soups, surveys, without_checkpoints  # noqa: PLC0415 - callers in Python need none

    for module in (soups, surveys, without_checkpoints):
        for options in vars(module).values():
            if isinstance(options, type) and dataclasses.is_dataclass(options):
                for hint in get_type_hints(options, include_extras=True).values():
                    infos = (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, OptionInfo))
                    for info in infos:
                        yield from [info.envvar] if isinstance(info.envvar, str) else info.envvar or ()
