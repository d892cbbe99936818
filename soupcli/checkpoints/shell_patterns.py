"""Names of files against shell patterns: a folder may hold 100,000 of them, so many patterns are one expression."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import cache


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether `name` matches one of the shell patterns, upper and lower case apart."""
    return _expression(tuple(patterns)).match(name) is not None


@cache
def _expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)))
