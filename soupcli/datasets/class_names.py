"""Names of classes, matched without regard to case and separators, and the orders in which libraries sort them.

match(["bird", "cat"], ("Cat", "Bird"))                 # {"bird": 1, "cat": 0}
in_order(["c2", "c10"], "text")                         # ["c10", "c2"], as torchvision and datasets sort
in_order(["c10", "c2"], "natural")                      # ["c2", "c10"], as timm sorts
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from soupcli.errors import ValidationError

Order = Literal["text", "natural"]
SHOWN = 12  # names of a list in a message
_SEPARATORS = re.compile(r"[\s_\-./]+")


class Match(NamedTuple):
    """The place of each name among the known ones, names without a place, and names with several."""

    places: dict[str, int]
    unknown: list[str]
    ambiguous: list[str]


def match(names: Iterable[str], known: Sequence[str]) -> Match:
    """Find each name among the known ones: by exact spelling, else without case and separators."""
    exact, loose = _places(known, str), _places(known, spelled)
    found = Match({}, [], [])
    for name in names:
        places = exact.get(name) or loose.get(spelled(name), [])
        if len(places) == 1:
            found.places[name] = places[0]
        else:
            (found.ambiguous if places else found.unknown).append(name)
    return found


def spelled(name: str) -> str:
    """Return the name without case and separators, and with accents encoded in one way."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return _SEPARATORS.sub("", plain) or plain


def in_order(names: Iterable[str], order: Order) -> list[str]:
    """Return the names, each once, in the order of a library."""
    return sorted(set(names), key=_KEYS[order])


def listed(names: Sequence[str]) -> str:
    """Return the names as text, or the first of many."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}, ... ({len(names)} in all)"


def check_order(where: object, names: Sequence[str], lists: Mapping[str, Sequence[str]], way_out: str) -> None:
    """Raises ValidationError if one of `lists`, from beside the weights, has the same names in another order.

    `names` are in the order of the logits, as far as is known. What the list is of is not known: neither is taken.
    """
    plain = [spelled(name) for name in names]
    for place, order in lists.items():
        others = [spelled(name) for name in order]
        if others != plain and sorted(others) == sorted(plain):
            raise ValidationError(
                f"{where}: the order of the classes would be {listed(names)}; {place} beside the weights lists "
                f"{listed(order)}",
                hint=way_out,
            )


def _natural(name: str) -> tuple[list[Any], str]:
    """Return timm.utils.natural_key: numbers in a name compare as numbers, letters without case."""
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part[:4000]) if place % 2 else part) for place, part in enumerate(parts)], name


def _text(name: str) -> str:
    return name


_KEYS: dict[Order, Callable[[str], Any]] = {"text": _text, "natural": _natural}


def _places(known: Sequence[Any], key: Callable[[Any], str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, name in enumerate(known):
        places.setdefault(key(name), []).append(place)
    return places
