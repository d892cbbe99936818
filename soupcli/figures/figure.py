"""A figure as plain data: panels with axes, and the marks, lines and cells in them. This file draws nothing.

Values are in the units of the axes; sizes are in CSS pixels. Renderers add nothing.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Role = Literal[
    "ingredient",
    "best",
    "uniform",
    "greedy",
    "learned",
    "ensemble",
    "greedy-ensemble",
    "soup",
    "kept",
    "left-out",
    "at-best",
    "corner",
    "mean",
]
Ramp = Literal["amount", "signed", "height"]
Point = tuple[float, float]


class Mark(NamedTuple):
    """A dot or another shape, by its role, with one standard error to each side if there is one."""

    role: Role
    x: float
    y: float
    name: str  # said where a pointer rests on it
    x_error: float | None = None
    y_error: float | None = None


class Line(NamedTuple):
    """Polylines of one kind."""

    paths: tuple[tuple[Point, ...], ...]
    style: Literal["solid", "guide", "contour", "edge"]
    name: str = ""


class Cells(NamedTuple):
    """A heat map: rows from below, `x_edges` and `y_edges` are one more than columns and rows."""

    x_edges: tuple[float, ...]
    y_edges: tuple[float, ...]
    values: tuple[tuple[float | None, ...], ...]
    names: tuple[tuple[str, ...], ...]
    scale: Axis
    ramp: Ramp


class Axis(NamedTuple):
    """From `low` to `high`, with texts at some values; `slanted`: the texts are names and may be long."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    slanted: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes, `width` by `height` between them."""

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...] = ()
    lines: tuple[Line, ...] = ()
    cells: Cells | None = None
    texts: tuple[tuple[Point, str], ...] = ()  # beside points
    width: float = 340
    height: float = 250


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Panels side by side, `columns` in a row, under one legend. `caption` describes the figure for the blind."""

    kind: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[Role, str], ...] = ()
    columns: int = 2


def printable(text: str) -> str:
    """Return `text` with invisible characters (control characters, bytes that are not UTF-8) as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def named(text: str, longest: int = 28) -> str:
    """`text` to be drawn as a label: printable, and with its middle left out if it is long."""
    shown = printable(text)
    if len(shown) <= longest:
        return shown
    end = longest // 2
    return f"{shown[: longest - end - 1]}…{shown[-end:]}"


LABEL = 28  # letters of a name in a figure


def short_names(paths: Sequence[str], longest: int = LABEL) -> list[str]:
    """What tells paths apart, in at most `longest` letters: without the folders and the file name that all share.

    Of names that fit no label the words between `_` that all share are left out too: `lr1e-5_seed0`.
    """
    parts = [path.rstrip("/").split("/") for path in paths]
    if len(parts) > 1:
        while min(map(len, parts)) > 1 and len({tuple(part[:1]) for part in parts}) == 1:
            parts = [part[1:] for part in parts]
        while min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
            parts = [part[:-1] for part in parts]
    else:
        parts = [part[-1:] for part in parts]
    names = ["/".join(part) for part in parts]
    if max(map(len, names), default=0) > LABEL:
        names = _differing_words(names)
    return [named(name, longest) for name in names]


def _differing_words(names: Sequence[str]) -> list[str]:
    """Without the words that are the same in all names; as they are if that leaves two alike, or one empty."""
    words = [re.split(r"(?<=[_/])", name) for name in names]
    kept = [place for place, of_all in enumerate(zip(*words, strict=False)) if len(set(of_all)) > 1]
    if len({len(of) for of in words}) > 1 or not kept:
        return list(names)
    short = ["".join(of[place] for place in kept).rstrip("_/") for of in words]
    return short if len(set(short)) == len(set(names)) and all(short) else list(names)


def scaled(title: str, values: Iterable[float], *, margin: float = 0.06, count: int = 5) -> Axis:
    """Return an axis around finite values, with about `count` round ticks."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    spread = high - low or max(abs(high) * 0.02, 1e-6)
    low, high = low - spread * margin, high + spread * margin
    return Axis(title, low, high, ticks(low, high, count))


def fences(values: Iterable[float]) -> tuple[float, float]:
    """What is not far out: three times the middle half's width beyond it (Tukey 1977); all of fewer than `FEW`."""
    finite = sorted(value for value in values if math.isfinite(value))
    if len(finite) < FEW:
        return -math.inf, math.inf
    lower, _, upper = statistics.quantiles(finite, n=4)
    reach = 3 * (upper - lower)
    return lower - reach, upper + reach


FEW = 12


def ticks(low: float, high: float, count: int = 5) -> tuple[tuple[float, str], ...]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten between two numbers, with as many digits as they need."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.75)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (1 if f"{step:e}".startswith("2.5") else 0))
    return tuple((number * step, f"{number * step + 0.0:.{digits}f}") for number in range(first, last + 1))


def rows(title: str, names: Sequence[str]) -> Axis:
    """An axis of names from above: the first at len(names) - 1, the last at 0; one a line, all of them."""
    shown = tuple((float(len(names) - 1 - number), name) for number, name in enumerate(names))
    return Axis(title, -0.5, len(names) - 0.5, shown)


def categories(title: str, names: Sequence[str], *, width: float, slanted: bool = True) -> Axis:
    """An axis of names at 0, 1, 2 ...; some are left out if they are closer than a line of text."""
    every = max(1, math.ceil(13 * len(names) / width))
    shown = tuple((float(number), name) for number, name in enumerate(names) if number % every == 0)
    return Axis(title, -0.5, len(names) - 0.5, shown, slanted)
