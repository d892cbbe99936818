"""Figures as SVG of our own and of matplotlib, checked by what is in them: both draw the same marks."""

from __future__ import annotations

import itertools
import re
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from PIL import Image

from soupcli.figures.draw import matplotlib, svg
from soupcli.figures.draw.layout import SMALL, label_depth, layout, text_width
from soupcli.figures.draw.palette import GROUNDS, STYLES, Theme, colour, ramp, step_of
from soupcli.figures.figure import Figure, Role
from soupcli.figures.registry import KINDS
from tests.helpers.report_toys import gathered, greedy, learned, ranked

PATHS = [f"runs/{number:02}" for number in range(12)]
SVG = "{http://www.w3.org/2000/svg}"


def all_figures(paths: list[str]) -> dict[str, Figure]:
    reports = gathered(greedy(paths), ranked(paths), learned(paths))
    return {kind: make(reports) for kind, make in KINDS.items() if kind in ("scores", "path", "coefficients")}


FIGURES = all_figures(PATHS)


def parsed(figure: Figure) -> ElementTree.Element:
    return ElementTree.fromstring(svg.drawn(figure))


def classed(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if element.get("class") == name]


@pytest.mark.parametrize("kind", FIGURES)
def test_marks(kind: str) -> None:
    """Every mark stands in the picture with its name, beside those of the legend, and every panel has both titles."""
    figure = FIGURES[kind]
    root = parsed(figure)
    roles = [mark.role for panel in figure.panels for mark in panel.marks]
    legend = [role for role, _ in figure.legend]
    for role in {*roles, *legend}:
        assert len(classed(root, role)) == roles.count(role) + legend.count(role), role
    named = {title.text for title in root.iter(f"{SVG}title")}
    assert {mark.name for panel in figure.panels for mark in panel.marks} <= named
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert all(panel.x.title in texts and panel.y.title in texts for panel in figure.panels)
    assert all(text in texts for _, text in figure.legend)


@pytest.mark.parametrize("kind", FIGURES)
def test_for_those_who_do_not_see_it(kind: str) -> None:
    """A picture is one image with a title and a description, which it names."""
    root = parsed(FIGURES[kind])
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and description is not None and root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text == FIGURES[kind].title and len(description.text or "") > 40


def test_whiskers() -> None:
    """One line for each standard error, as long as it; it ends at the frame."""
    figure = FIGURES["scores"]
    root = parsed(figure)
    marks = [mark for panel in figure.panels for mark in panel.marks]
    expected = sum(mark.role == "best" for mark in marks if mark.x_error) + sum(
        mark.role == "best" for mark in marks if mark.y_error
    )
    assert len(classed(root, "best-error")) == expected > 0
    placed = layout(figure).panels[1]
    best = next(mark for mark in placed.panel.marks if mark.role == "best")
    assert best.y_error is not None
    high, low = placed.at(best.x, best.y + best.y_error), placed.at(best.x, best.y - best.y_error)
    line = next(
        element
        for element in classed(root, "best-error")
        if element.get("x1") == element.get("x2") == f"{high[0]:.1f}".removesuffix(".0")
    )
    assert sorted([float(line.get("y1", 0)), float(line.get("y2", 0))]) == pytest.approx([high[1], low[1]], abs=0.1)


def test_cells() -> None:
    """A heat map has one cell for each value, coloured by it, and a scale beside."""
    figure = FIGURES["coefficients"]
    cells = figure.panels[0].cells
    assert cells is not None
    rects = [rect for rect in parsed(figure).iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    values = [value for row in cells.values for value in row]
    assert [rect.get("class") for rect in rects] == [
        f"amount-{step_of(value, cells.scale.low, cells.scale.high)}" for value in values if value is not None
    ]
    assert len({rect.get("class") for rect in rects}) > 3


@pytest.mark.parametrize("count", [1, 2, 12, 80])
def test_nothing_overlaps(count: int) -> None:
    """Whatever the number of ingredients, panels, legend entries and the texts of an axis keep apart, inside."""
    for figure in all_figures([f"runs/{'long-' * 3}{number:03}" for number in range(count)]).values():
        whole = layout(figure)
        for placed in whole.panels:
            panel = placed.panel
            assert placed.x + panel.width <= whole.width
            assert placed.y + panel.height + label_depth(panel.x) + 16 <= whole.height
            assert placed.x - max(text_width(words, SMALL) for _, words in panel.y.ticks) > 12
            rows = sorted(placed.at(panel.x.low, value)[1] for value, _ in panel.y.ticks)
            assert all(b - a >= SMALL for a, b in itertools.pairwise(rows))
            columns = sorted(placed.at(value, panel.y.low)[0] for value, _ in panel.x.ticks)
            widest = SMALL if panel.x.slanted else max(text_width(words, SMALL) for _, words in panel.x.ticks)
            assert all(b - a >= widest for a, b in itertools.pairwise(columns))
        for one, other in zip(whole.legend, whole.legend[1:], strict=False):
            assert other.y > one.y or other.x > one.x + text_width(one.text, 12)


@settings(max_examples=40)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=4, unique=True))
def test_hostile_names(paths: list[str]) -> None:
    """Whatever paths hold, the picture is XML without an element of theirs, and says them, printable."""
    for figure in all_figures(paths).values():
        text = svg.drawn(figure)
        root = ElementTree.fromstring(text)
        allowed = {"svg", "title", "desc", "g", "text", "line", "rect", "circle", "polygon", "path"}
        assert {element.tag.removeprefix(SVG) for element in root.iter()} <= allowed
        assert all(mark.name.isprintable() for panel in figure.panels for mark in panel.marks)


def test_colours_of_themes() -> None:
    """Every class that pictures use has a rule, and both themes define every colour that rules name."""
    used = set(re.findall(r"var\((--[\w-]+)\)", svg.RULES))
    for theme in ("light", "dark"):
        assert used == set(re.findall(r"(--[\w-]+):", svg.stylesheet(theme)))
    for figure in FIGURES.values():
        classes = {name for element in parsed(figure).iter() for name in (element.get("class") or "").split()}
        assert all(f".{name}" in svg.RULES for name in classes - {"cells"})


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast() -> None:
    """Text has a contrast of 4.5 to its ground, marks of 3 (WCAG 2.1), on light and on dark; shapes differ too."""
    for theme in ("light", "dark"):
        ground = GROUNDS[theme]
        assert min(contrast(ground.ink, ground.paper), contrast(ground.faint, ground.paper)) >= 4.5
        for role in STYLES:
            if role not in ("corner", "mean"):  # these stand on a heat map, framed in black
                assert contrast(colour(role, theme), ground.paper) >= 3, (role, theme)
    marked: tuple[Role, ...] = (
        "ingredient",
        "best",
        "uniform",
        "greedy",
        "learned",
        "ensemble",
        "greedy-ensemble",
        "soup",
    )
    assert len({STYLES[role].shape for role in marked}) == len(marked)


def test_ramps_rise() -> None:
    """The lightness of a ramp moves one way, so that it reads without colour; of two signs, away from the middle."""
    for name in ("amount", "height"):
        for theme in ("light", "dark"):
            tones = [luminance(tone) for tone in ramp(name, theme)]
            assert tones == sorted(tones, reverse=tones[0] > tones[-1])
    tones = [luminance(tone) for tone in ramp("signed", "light")]
    half = len(tones) // 2
    assert tones[:half] == sorted(tones[:half]) and tones[half:] == sorted(tones[half:], reverse=True)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", FIGURES)
def test_file_of_its_own(kind: str, theme: Theme) -> None:
    """An SVG file has the theme's colours as numbers, a ground, a size and no variable: any program shows it."""
    text = svg.document(FIGURES[kind], theme)
    root, whole = ElementTree.fromstring(text.encode()), layout(FIGURES[kind])
    assert "var(" not in text and "--" not in text.partition("-->")[2].partition("</style>")[0]
    assert root.get("width") == f"{whole.width:g}" and root.get("height") == f"{whole.height:g}"
    [rule] = re.findall(r"[^}]*svg text\{[^}]*\}", text)
    assert GROUNDS[theme].ink in rule
    ground = next(element for element in root if element.tag == f"{SVG}rect")
    assert ground.get("fill") == GROUNDS[theme].paper
    styled = set(re.findall(r"\.([\w-]+)\{", text))
    classes = {name for element in root.iter() for name in (element.get("class") or "").split()}
    assert classes - {"cells"} <= {name for one in styled for name in one.split()}, classes - styled


@pytest.mark.parametrize("kind", FIGURES)
def test_matplotlib_marks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib's picture has as many marks of each panel and the same texts as ours."""
    figure, savefig = FIGURES[kind], Canvas.savefig
    kept: list[Canvas] = []

    def keep(canvas: Canvas, *words: Any, **how: Any) -> None:
        kept.append(canvas)
        savefig(canvas, *words, **how)

    monkeypatch.setattr(Canvas, "savefig", keep)
    matplotlib.drawn(figure, "light")
    [canvas] = kept
    inside = [axes for axes in canvas.axes[1:] if axes.get_xaxis().get_ticklocs().size]  # neither page nor colour bar
    for axes, panel in zip(inside, figure.panels, strict=True):
        marked = [numpy.shape(one.get_offsets())[0] for one in axes.collections if isinstance(one, PathCollection)]
        assert sum(marked) == len(panel.marks)
    texts = [text.get_text() for text in canvas.findobj(Text)]
    assert figure.title in texts and all(text in texts for _, text in figure.legend)
    assert all(panel.x.title in texts and panel.y.title in texts for panel in figure.panels)


def test_matplotlib_png() -> None:
    """A PNG of two dots for each pixel of the layout, the same bytes again; dark is dark."""
    figure = FIGURES["path"]
    data = matplotlib.drawn(figure, "dark")
    assert data == matplotlib.drawn(figure, "dark")
    picture = Image.open(BytesIO(data)).convert("RGB")
    whole = layout(figure)
    assert picture.size == (whole.width * 2, whole.height * 2)
    assert picture.getpixel((2, 2)) == (15, 20, 25)
    assert len(picture.getcolors(1 << 20) or []) > 50


@settings(max_examples=8, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=3, unique=True))
def test_matplotlib_with_hostile_names(paths: list[str]) -> None:
    """No path is taken for mathematics, breaks the picture or draws a warning."""
    figure = all_figures(["$x^", "$\\frac$", *paths])["path"]
    assert matplotlib.drawn(figure, "light").startswith(b"\x89PNG")
