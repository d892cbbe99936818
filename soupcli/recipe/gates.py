"""The language of `gates:` and `--require-gain`: what a soup must reach on a set.

gates: {imagenet-a: ">= best - 0.5", val.nll: "<= 1.2", rte: ">= 80%"}

gate   = sign ( "best" [ ("+" | "-") margin ] | bound )
sign   = ">=" | ">" | "<=" | "<"
margin = number [ "%" ]      percentage points of a share such as accuracy, else the metric's own unit
bound  = number [ "%" ]      the metric's own unit, of a share: a fraction of 1; or per cent
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from soupcli.wording import nearest

Sign = Literal[">=", ">", "<=", "<"]

_NUMBER = r"(?P<{}>\d{{1,30}}\.?\d{{0,30}}|\.\d{{1,30}})\s*(?P<{}>%)?"
_GATE = re.compile(
    r"\s*(?P<sign>>=|<=|>|<)\s*(?:(?P<best>best)(?:\s*(?P<way>[-+])\s*"
    + _NUMBER.format("margin", "margin_unit")
    + r")?|(?P<minus>-)?\s*"
    + _NUMBER.format("bound", "bound_unit")
    + r")\s*"
)
_FORM = "expected a bound such as '>= best - 0.5' or '>= 0.8'"

GAIN = "require_gain"  # key of the gate that the required gain makes


class Bound(NamedTuple):
    """A bound: a number, or the best ingredient's value plus a margin (`number`, with its sign).

    `per_cent`: the number was written with a `%`. `better`: the margin is how much better than the best ingredient, on
    whichever side better is.
    """

    sign: Sign
    best: bool
    number: Fraction
    per_cent: bool = False
    better: bool = False


class Gain(NamedTuple):
    """`0.1`, `0.1%` or `test=0.1`: how much better than the best ingredient; `set` None: on the set that says most."""

    set: str | None
    margin: Fraction
    per_cent: bool = False


class Wanted(NamedTuple):
    """A gate as the recipe has it: its dotted key, the set, the metric (None: the one that selects), the bound."""

    key: str
    set: str
    metric: str | None
    text: Any


def wanted(gates: Mapping[str, Any], sets: Collection[str]) -> list[Wanted]:
    """The gates of a recipe with such sets: `SET: BOUND`, `SET.METRIC: BOUND` or `SET: {METRIC: BOUND}`."""
    found = []
    for key, text in leaves(gates):
        name, dot, metric = key.rpartition(".")
        alone = key in sets or not dot
        found.append(Wanted(f"gates.{key}", key if alone else name, None if alone else metric, text))
    return found


def leaves(gates: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The dotted key of each bound, and the bound: a dot in a key is as good as a map in a map."""
    for key, value in gates.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", bound) for inner, bound in leaves(value))
        else:
            yield key, value


def parse(text: object) -> Bound:
    """Parse the bound of a gate. Raises ValueError with what was expected and what was given."""
    matched = _GATE.fullmatch(text) if isinstance(text, str) else None
    if matched is None:
        raise ValueError(f"{_FORM}, got {text!r}{_suggestion(text)}")
    number = Fraction(matched["margin"] or matched["bound"] or 0)
    if "-" in (matched["way"], matched["minus"]):
        number = -number
    sign: Sign = matched["sign"]  # type: ignore[assignment]
    return Bound(sign, matched["best"] is not None, number, bool(matched["margin_unit"] or matched["bound_unit"]))


def parse_gain(value: object) -> Gain:
    """Parse `--require-gain`. Raises ValueError with what was expected and what was given."""
    name, equals, number = str(value).rpartition("=")
    text = number.strip().removesuffix("%").rstrip()
    per_cent = number.rstrip().endswith("%")
    if (
        isinstance(value, bool)
        or not re.fullmatch(r"[-+]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})(e-?\d{1,2})?", text)
        or (equals and not name)
    ):
        raise ValueError(f"expected a margin such as 0.1 or 0.1%, or one on a set such as test=0.1, got {value!r}")
    return Gain(name or None, Fraction(text), per_cent)


def _suggestion(text: object) -> str:
    """The nearest right word of a gate whose one word is wrong."""
    words = re.findall(r"[A-Za-z]+", text) if isinstance(text, str) else []
    near = [word for word in words if word != "best" and nearest(word.lower(), ["best"])]
    if near:
        return f", did you mean {str(text).replace(near[0], 'best')!r}?"
    if isinstance(text, str) and re.match(r"\s*=[<>]", text):
        turned = re.sub("=([<>])", r"\1=", text, count=1)
        return f", did you mean {turned!r}?"
    return ""
