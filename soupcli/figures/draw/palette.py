"""Colours and shapes that colour-blind people can tell apart, on light and dark grounds.

The colours of marks are those of Okabe and Ito (Color Universal Design, 2008), lighter on dark ground; "height" is
viridis; the other ramps begin at the ground's own colour and end where it contrasts most.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from soupcli.figures.figure import Ramp, Role

Theme = Literal["light", "dark"]
Shape = Literal["dot", "ring", "triangle", "diamond", "star", "square", "cross", "plus", "pentagon", "down"]
STEPS = 32  # colours of a ramp


class Ground(NamedTuple):
    """Colours of everything but the data."""

    paper: str
    ink: str
    faint: str  # text of less weight
    rule: str  # grid and frame


class Style(NamedTuple):
    """The mark of a role. `size` is about its radius in pixels."""

    shape: Shape
    size: float
    light: str
    dark: str


GROUNDS: dict[Theme, Ground] = {
    "light": Ground("#ffffff", "#1b1f24", "#59636e", "#d8dee4"),
    "dark": Ground("#0f1419", "#e6e9ed", "#9aa5b1", "#2d363f"),
}
STYLES: dict[Role, Style] = {
    "ingredient": Style("dot", 3.6, "#7b8794", "#8d99a6"),
    "best": Style("triangle", 6.5, "#0072b2", "#56b4e9"),
    "uniform": Style("diamond", 6.5, "#009e73", "#2fc99b"),
    "greedy": Style("star", 8.5, "#d55e00", "#ff8a3c"),
    "learned": Style("square", 5.2, "#a3407b", "#e08fc0"),
    "ensemble": Style("plus", 7.0, "#9a6a00", "#f0c03a"),
    "greedy-ensemble": Style("pentagon", 6.2, "#4b5cc4", "#9aa8ff"),
    "soup": Style("cross", 6.0, "#1b1f24", "#e6e9ed"),
    "kept": Style("dot", 5.0, "#d55e00", "#ff8a3c"),
    "left-out": Style("ring", 4.6, "#d55e00", "#ff8a3c"),
    "at-best": Style("down", 5.2, "#d55e00", "#ff8a3c"),
    "corner": Style("dot", 5.5, "#ffffff", "#ffffff"),
    "mean": Style("star", 9.5, "#ffffff", "#ffffff"),
}
_RAMPS: dict[Ramp, dict[Theme, tuple[str, ...]]] = {
    "amount": {
        "light": ("#f7fafc", "#c6dbef", "#6baed6", "#2171b5", "#08306b"),
        "dark": ("#182028", "#1f4468", "#2f7fb8", "#7cbbe6", "#e8f4ff"),
    },
    "signed": {
        "light": ("#8c3d04", "#e0964f", "#f6f6f6", "#5a9fcf", "#08407a"),
        "dark": ("#ffc48f", "#b8672a", "#20272e", "#2f7fb8", "#a9d6f7"),
    },
    "height": dict.fromkeys(("light", "dark"), ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")),
}


def ramp(name: Ramp, theme: Theme) -> list[str]:
    """STEPS colours, evenly between those that are named above."""
    stops = [tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in _RAMPS[name][theme]]
    colours: list[str] = []
    for step in range(STEPS):
        place = step / (STEPS - 1) * (len(stops) - 1)
        index = min(int(place), len(stops) - 2)
        rest = place - index
        mixed = [round(a + (b - a) * rest) for a, b in zip(stops[index], stops[index + 1], strict=True)]
        colours.append("#{:02x}{:02x}{:02x}".format(*mixed))
    return colours


def step_of(value: float, low: float, high: float) -> int:
    """Which of the STEPS colours a value has on a scale."""
    share = (value - low) / (high - low) if high > low else 0.5
    return min(STEPS - 1, max(0, int(share * STEPS)))


def colour(role: Role, theme: Theme) -> str:
    """The colour of a role."""
    return STYLES[role].light if theme == "light" else STYLES[role].dark


HOLLOW = ("ring", "down")  # drawn as an outline


def shape_points(shape: Shape, size: float) -> list[tuple[float, float]]:
    """Return the corners of a shape around (0, 0), y downwards; nothing for a circle."""
    if shape == "triangle":
        return [(0, -size), (size * 0.95, size * 0.7), (-size * 0.95, size * 0.7)]
    if shape == "down":
        return [(0, size), (size * 0.95, -size * 0.7), (-size * 0.95, -size * 0.7)]
    if shape == "diamond":
        return [(0, -size), (size, 0), (0, size), (-size, 0)]
    if shape == "square":
        return [(-size, -size), (size, -size), (size, size), (-size, size)]
    if shape == "star":
        radii = [size if corner % 2 == 0 else size * 0.42 for corner in range(10)]
        return [(r * sin(pi * n / 5), -r * cos(pi * n / 5)) for n, r in enumerate(radii)]
    if shape == "pentagon":
        return [(size * sin(pi * n / 2.5), -size * cos(pi * n / 2.5)) for n in range(5)]
    if shape in ("plus", "cross"):
        arm, wide = size, size * 0.3
        plus = [(-wide, -arm), (wide, -arm), (wide, -wide), (arm, -wide), (arm, wide), (wide, wide)]
        plus += [(-x, -y) for x, y in plus]
        half = 0.5**0.5
        return plus if shape == "plus" else [((x - y) * half, (x + y) * half) for x, y in plus]
    return []
