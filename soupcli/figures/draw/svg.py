"""A figure as one `<svg>`, for a page or a file: no script, no font and no file from elsewhere.

    drawn(figure)                # for a page: colours are CSS classes, its stylesheet decides between light and dark
    document(figure, "dark")     # a file of its own, with a ground, a font and its colours as numbers

Marks and cells have a `<title>`, which browsers show where a pointer rests on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from soupcli.figures.draw.layout import LARGE, NORMAL, SCALE_WIDTH, SMALL, Key, Placed, label_depth, layout, share
from soupcli.figures.draw.palette import GROUNDS, HOLLOW, STEPS, STYLES, Theme, colour, ramp, shape_points, step_of
from soupcli.figures.figure import Cells, Figure, Line, Mark, Ramp, Role, printable
from soupcli.files.own_file import SVG_START

RAMPS: tuple[Ramp, ...] = ("amount", "signed", "height")


def text(value: str) -> str:
    """`value` as it may stand in HTML and XML, in an attribute too: escaped, nothing that no reader shows."""
    return escape(printable(value), quote=True)


def _variables(theme: Theme) -> dict[str, str]:
    ground = GROUNDS[theme]
    variables = {"paper": ground.paper, "ink": ground.ink, "faint": ground.faint, "rule": ground.rule}
    variables |= {role: colour(role, theme) for role in STYLES}
    variables |= {f"{name}-{step}": tone for name in RAMPS for step, tone in enumerate(ramp(name, theme))}
    return variables


def stylesheet(theme: Theme) -> str:
    """CSS variables of a theme; `RULES` uses them."""
    return "".join(f"--{name}:{value};" for name, value in _variables(theme).items())


def _rules() -> Iterator[str]:
    yield "svg text{fill:var(--ink);font-family:inherit}"
    yield f".small{{font-size:{SMALL}px}}.normal{{font-size:{NORMAL}px}}.large{{font-size:{LARGE}px;font-weight:600}}"
    yield "svg .faint{fill:var(--faint)}.grid{stroke:var(--rule);fill:none}.frame{stroke:var(--faint);fill:none}"
    yield ".solid{stroke:var(--kept);stroke-width:1.8;fill:none}"
    yield ".guide{stroke:var(--faint);stroke-dasharray:4 3;fill:none}"
    yield ".contour{stroke:#fff;stroke-opacity:.65;stroke-width:1;fill:none}"
    yield ".edge{stroke:#fff;stroke-dasharray:5 4;stroke-width:1.2;fill:none}"
    yield ".on-cells{fill:#fff;stroke:#111;stroke-width:3;paint-order:stroke;font-weight:600}"
    for role, style in STYLES.items():
        if style.shape in HOLLOW:
            yield f".{role}{{fill:var(--paper);stroke:var(--{role});stroke-width:1.8}}"
        else:
            edge = "#111" if role in ("corner", "mean") else "var(--paper)"
            opacity = ";fill-opacity:.75" if role == "ingredient" else ""
            yield f".{role}{{fill:var(--{role});stroke:{edge};stroke-width:{1.4 if edge == '#111' else 0.9}{opacity}}}"
        yield f".{role}-error{{stroke:var(--{role});stroke-width:1.1;stroke-opacity:{_opacity(role)}}}"
    yield from (f".{name}-{step}{{fill:var(--{name}-{step})}}" for name in RAMPS for step in range(STEPS))


def _opacity(role: Role) -> float:
    return 0.28 if role == "ingredient" else 0.8


RULES = "".join(_rules())


def drawn(figure: Figure) -> str:
    """The figure as one `<svg>` element with a title and a description."""
    placed = layout(figure)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(placed.width)} {_n(placed.height)}" '
        f'width="{_n(placed.width)}" role="img" aria-labelledby="{figure.kind}-title {figure.kind}-description">',
        f'<title id="{figure.kind}-title">{text(figure.title)}</title>',
        f'<desc id="{figure.kind}-description">{text(figure.caption)}</desc>',
        _text(12, 22, figure.title, "large"),
        *(_key(key) for key in placed.legend),
    ]
    for panel in placed.panels:
        parts += _panel(panel)
    return "".join([*parts, "</svg>"])


def document(figure: Figure, theme: Theme) -> str:
    """The figure as a file of its own. Its colours are numbers: few programs but browsers know CSS variables."""
    values = _variables(theme)
    element = drawn(figure)
    rules = re.sub(r"var\(--([\w-]+)\)", lambda found: values[found[1]], RULES)
    used = set(" ".join(re.findall(r'class="([^"]+)"', element)).split())
    rules = "".join(rule for rule in re.findall(r"[^{}]+\{[^{}]*\}", rules) if _names(rule) <= used)
    place = element.index(">") + 1
    height = re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', element)
    assert height is not None
    return (
        f'{SVG_START}{element[: place - 1]} height="{height[1]}">'
        f'<style>svg{{font-family:"DejaVu Sans",sans-serif}}{rules}</style>'
        f'<rect width="100%" height="100%" fill="{values["paper"]}"/>{element[place:]}\n'
    )


def _names(rule: str) -> set[str]:
    """The classes that a rule is of."""
    return set(re.findall(r"\.([\w-]+)", rule.partition("{")[0]))


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _text(x: float, y: float, words: str, classes: str, anchor: str = "start", turn: float = 0) -> str:
    turned = f' transform="rotate({_n(turn)} {_n(x)} {_n(y)})"' if turn else ""
    at = f'x="{_n(x)}" y="{_n(y)}"'
    return f'<text {at} class="{classes}" text-anchor="{anchor}"{turned}>{text(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{classes}"/>'


def _key(key: Key) -> str:
    return shape(key.role, key.x, key.y) + _text(key.x + 13, key.y + 4, key.text, "normal")


def shape(role: Role, x: float, y: float, name: str = "") -> str:
    """The mark of a role at a place."""
    style = STYLES[role]
    title = f"<title>{text(name)}</title>" if name else ""
    corners = shape_points(style.shape, style.size)
    if not corners:
        return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(style.size)}" class="{role}">{title}</circle>'
    points = " ".join(f"{_n(x + dx)},{_n(y + dy)}" for dx, dy in corners)
    return f'<polygon points="{points}" class="{role}">{title}</polygon>'


def _panel(placed: Placed) -> Iterator[str]:
    panel = placed.panel
    yield f'<g role="group" aria-label="{text(panel.title)}">'
    yield _text(placed.x, placed.y - 8, panel.title, "normal")
    if panel.cells is not None:
        yield from _cells(placed, panel.cells)
    yield from _axes(placed)
    yield from (_polylines(placed, line) for line in panel.lines)
    yield from _errors(placed, panel.marks)
    yield from (shape(mark.role, *placed.at(mark.x, mark.y), mark.name) for mark in panel.marks)
    for (x, y), words in panel.texts:
        left, top = placed.at(x, y)
        yield _text(left + 9, top - 8, words, "normal on-cells")
    yield "</g>"


def _axes(placed: Placed) -> Iterator[str]:
    panel, left, top = placed.panel, placed.x, placed.y
    bottom, right = top + panel.height, left + panel.width
    gridded = panel.cells is None
    for value, words in panel.x.ticks:
        x = left + share(panel.x, value) * panel.width
        if gridded and not panel.x.slanted:
            yield _line(x, top, x, bottom, "grid")
        if panel.x.slanted:
            yield _text(x + 3, bottom + 12, words, "small faint", "end", -45)
        else:
            yield _text(x, bottom + 16, words, "small faint", "middle")
    for value, words in panel.y.ticks:
        y = top + (1 - share(panel.y, value)) * panel.height
        if gridded:
            yield _line(left, y, right, y, "grid")
        yield _text(left - 7, y + 4, words, "small faint", "end")
    yield f'<rect x="{_n(left)}" y="{_n(top)}" width="{_n(panel.width)}" height="{_n(panel.height)}" class="frame"/>'
    yield _text((left + right) / 2, bottom + label_depth(panel.x) + 16, panel.x.title, "normal", "middle")
    widest = max((len(words) for _, words in panel.y.ticks), default=0) * SMALL * 0.58
    yield _text(left - widest - 17, (top + bottom) / 2, panel.y.title, "normal", "middle", -90)


def _polylines(placed: Placed, line: Line) -> str:
    commands: list[str] = []
    for path in line.paths:
        places = [placed.at(*point) for point in path]
        commands.append("M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in places))
    title = f"<title>{text(line.name)}</title>" if line.name else ""
    return f'<path d="{"".join(commands)}" class="{line.style}">{title}</path>'


def _errors(placed: Placed, marks: Iterable[Mark]) -> Iterator[str]:
    """One standard error to each side, inside the panel."""
    panel = placed.panel
    for mark in marks:
        for along_x, error in ((True, mark.x_error), (False, mark.y_error)):
            if error is None:
                continue
            axis, middle = (panel.x, mark.x) if along_x else (panel.y, mark.y)
            ends = [min(max(middle + side * error, axis.low), axis.high) for side in (-1, 1)]
            places = [placed.at(end, mark.y) if along_x else placed.at(mark.x, end) for end in ends]
            yield _line(*places[0], *places[1], f"{mark.role}-error")


def _cells(placed: Placed, cells: Cells) -> Iterator[str]:
    panel, scale = placed.panel, cells.scale
    yield '<g class="cells" shape-rendering="crispEdges">'
    for row, (values, names) in enumerate(zip(cells.values, cells.names, strict=True)):
        for column, (value, name) in enumerate(zip(values, names, strict=True)):
            if value is None:
                continue
            left, bottom = placed.at(cells.x_edges[column], cells.y_edges[row])
            right, top = placed.at(cells.x_edges[column + 1], cells.y_edges[row + 1])
            tone = f"{cells.ramp}-{step_of(value, scale.low, scale.high)}"
            yield _rect(left, top, right - left, bottom - top, tone, name)
    left, height = placed.x + panel.width + 14, panel.height / STEPS
    for step in range(STEPS):
        yield _rect(left, placed.y + (STEPS - 1 - step) * height, SCALE_WIDTH, height, f"{cells.ramp}-{step}")
    yield "</g>"
    for value, words in scale.ticks:
        y = placed.y + (1 - share(scale, value)) * panel.height
        yield _text(left + SCALE_WIDTH + 5, y + 4, words, "small faint")
    yield _text(left + SCALE_WIDTH + 54, placed.y + panel.height / 2, scale.title, "normal", "middle", -90)


def _rect(x: float, y: float, width: float, height: float, classes: str, name: str = "") -> str:
    title = f"<title>{text(name)}</title>" if name else ""
    at = f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"'
    return f'<rect {at} class="{classes}">{title}</rect>' if title else f'<rect {at} class="{classes}"/>'
