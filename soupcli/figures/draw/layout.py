"""The layout of a figure, in CSS pixels from the top left, for every renderer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from soupcli.figures.figure import Axis, Figure, Panel, Role

SMALL, NORMAL, LARGE = 11.0, 12.0, 14.5  # font sizes
LETTER = 0.55  # of the font size, the width of a letter on average
GAP = 22.0
SCALE_WIDTH, SCALE_SPACE = 12.0, 84.0  # of the colours beside cells, and with their texts


class Placed(NamedTuple):
    """A panel, and where its axes meet: `x`, `y` is the top left corner of the space between them."""

    panel: Panel
    x: float
    y: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a pair of values."""
        return self.x + share(self.panel.x, x) * self.panel.width, self.y + (
            1 - share(self.panel.y, y)
        ) * self.panel.height


class Key(NamedTuple):
    """An entry of the legend: the centre of its mark, with the text to the right."""

    role: Role
    text: str
    x: float
    y: float


class Layout(NamedTuple):
    """The layout of a whole figure."""

    width: float
    height: float
    panels: list[Placed]
    legend: list[Key]


def share(axis: Axis, value: float) -> float:
    """The position of a value between the ends of an axis, 0 to 1."""
    return (value - axis.low) / (axis.high - axis.low)


def text_width(text: str, size: float) -> float:
    """Return the approximate width of a text."""
    return sum(1.0 if ord(letter) > 0x2E80 else LETTER for letter in text) * size


def layout(figure: Figure) -> Layout:
    """Title, legend and panels, row by row."""
    rows = [figure.panels[first : first + figure.columns] for first in range(0, len(figure.panels), figure.columns)]
    lefts = [max(_left(row[column]) for row in rows if column < len(row)) for column in range(len(rows[0]))]
    widths = [
        max(row[column].width + _right(row[column]) for row in rows if column < len(row))
        for column in range(len(rows[0]))
    ]
    width = max(sum(lefts) + sum(widths) + GAP, text_width(figure.title, LARGE) + 2 * GAP)
    legend, top = _legend(figure, width)
    placed: list[Placed] = []
    for row in rows:
        left = GAP / 2
        top += 24 if any(panel.title for panel in row) else 12
        for column, panel in enumerate(row):
            placed.append(Placed(panel, left + lefts[column], top))
            left += lefts[column] + widths[column]
        top += max(panel.height + _below(panel) for panel in row)
    return Layout(math.ceil(width), math.ceil(top + 4), placed, legend)


def _legend(figure: Figure, width: float) -> tuple[list[Key], float]:
    """The entries in lines of `width`, and where the space below them begins."""
    keys: list[Key] = []
    x, y = GAP, 46.0
    for role, text in figure.legend:
        needed = 18 + text_width(text, NORMAL) + 16
        if x + needed > width and x > GAP:
            x, y = GAP, y + 20
        keys.append(Key(role, text, x + 6, y))
        x += needed
    return keys, y + 12 if keys else 30.0


def _left(panel: Panel) -> float:
    """Room for the title and the texts of the y axis, and for slanted texts of the x axis, which reach to the left."""
    beside = 22 + max((text_width(text, SMALL) for _, text in panel.y.ticks), default=0) + 10
    return max(beside, label_depth(panel.x) - 20) if panel.x.slanted else beside


def _right(panel: Panel) -> float:
    return (SCALE_SPACE if panel.cells is not None else 0) + GAP


def _below(panel: Panel) -> float:
    """Room for the texts and the title of the x axis."""
    return label_depth(panel.x) + 34


def label_depth(axis: Axis) -> float:
    """Return how far the texts of an x axis extend downwards."""
    if not axis.slanted:
        return 16.0
    return 14 + 0.71 * max((text_width(text, SMALL) for _, text in axis.ticks), default=0)
