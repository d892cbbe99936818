"""A figure as PNG, drawn by matplotlib where layout.py says: the same inputs give the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from soupcli.environment import import_extra
from soupcli.figures.draw.layout import LARGE, NORMAL, SCALE_WIDTH, SMALL, Layout, Placed, label_depth, layout
from soupcli.figures.draw.palette import GROUNDS, HOLLOW, STYLES, Ground, Theme, colour, ramp, shape_points
from soupcli.files.own_file import GENERATOR

if TYPE_CHECKING:
    from soupcli.figures.figure import Cells, Figure, Mark, Role

POINT = 0.75  # points in a CSS pixel
DOTS = 192  # of a PNG, in an inch: two for each CSS pixel
SETTINGS = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a $ in a path is a $
    "path.snap": True,
}


def drawn(figure: Figure, theme: Theme) -> bytes:
    """The file's bytes. Raises MissingExtra if matplotlib is absent."""
    mpl = import_extra("matplotlib", extra="plot")
    canvas_of = import_extra("matplotlib.figure", extra="plot").Figure
    placed = layout(figure)
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # letters that the font has not
        canvas = canvas_of(figsize=(placed.width / 96, placed.height / 96), facecolor=GROUNDS[theme].paper)
        _Drawing(canvas, placed, theme).draw(figure)
        file = io.BytesIO()
        canvas.savefig(file, format="png", dpi=DOTS, metadata={"Software": GENERATOR, "Title": figure.title})
    return file.getvalue()


class _Drawing:
    """One figure on one canvas of matplotlib."""

    def __init__(self, canvas: Any, placed: Layout, theme: Theme) -> None:
        self.canvas = canvas
        self.placed = placed
        self.theme: Theme = theme
        self.ground: Ground = GROUNDS[theme]
        self.paths: dict[Role, Any] = {}

    def draw(self, figure: Figure) -> None:
        """Everything, title first."""
        page = self._axes(0, 0, self.placed.width, self.placed.height)
        page.set(xlim=(0, self.placed.width), ylim=(self.placed.height, 0))
        page.axis("off")
        page.text(12, 22, figure.title, fontsize=LARGE * POINT, fontweight="bold", color=self.ground.ink)
        for key in self.placed.legend:
            self._marks(page, key.role, [(key.x, key.y)])
            self._text(page, key.x + 13, key.y, key.text, NORMAL, va="center")
        for placed in self.placed.panels:
            self._panel(placed, page)

    def _axes(self, x: float, y: float, width: float, height: float) -> Any:
        whole = self.placed
        box = (x / whole.width, 1 - (y + height) / whole.height, width / whole.width, height / whole.height)
        return self.canvas.add_axes(box, facecolor=self.ground.paper)

    def _text(self, axes: Any, x: float, y: float, words: str, size: float, **how: Any) -> None:
        how = {"color": self.ground.ink} | how
        axes.text(x, y, words, fontsize=size * POINT, **how)

    def _panel(self, placed: Placed, page: Any) -> None:
        panel = placed.panel
        axes = self._axes(placed.x, placed.y, panel.width, panel.height)
        axes.set(xlim=(panel.x.low, panel.x.high), ylim=(panel.y.low, panel.y.high))
        axes.set_axisbelow(True)
        self._ticks(axes, placed)
        self._text(page, placed.x, placed.y - 8, panel.title, NORMAL)
        if panel.cells is not None:
            self._cells(axes, placed, panel.cells)
        for line in panel.lines:
            self._lines(axes, line.paths, line.style)
        for role in dict.fromkeys(mark.role for mark in panel.marks):
            marks = [mark for mark in panel.marks if mark.role == role]
            self._whiskers(axes, role, marks)
            self._marks(axes, role, [(mark.x, mark.y) for mark in marks])
        effects = import_extra("matplotlib.patheffects", extra="plot")
        outline = [effects.withStroke(linewidth=2.2, foreground="#111")]
        for (x, y), words in panel.texts:
            left, top = placed.at(x, y)
            how = {"color": "#fff", "fontweight": "bold", "path_effects": outline, "zorder": 9}
            self._text(page, left + 9, top - 8, words, NORMAL, **how)
        page.set_zorder(5)

    def _ticks(self, axes: Any, placed: Placed) -> None:
        panel, ground = placed.panel, self.ground
        for axis, of in ((panel.x, axes.xaxis), (panel.y, axes.yaxis)):
            of.set_ticks([value for value, _ in axis.ticks], [words for _, words in axis.ticks])
        axes.tick_params(colors=ground.faint, labelsize=SMALL * POINT, length=0, pad=4)
        if panel.x.slanted:
            for label in axes.get_xticklabels():
                label.set(rotation=45, ha="right", rotation_mode="anchor")
        for spine in axes.spines.values():
            spine.set(color=ground.faint, linewidth=0.7)
        if panel.cells is None:
            axes.grid(axis="y" if panel.x.slanted else "both", color=ground.rule, linewidth=0.7)
        page, bottom = self.canvas.axes[0], placed.y + panel.height
        middle = placed.x + panel.width / 2
        self._text(page, middle, bottom + label_depth(panel.x) + 16, panel.x.title, NORMAL, ha="center")
        widest = max((len(words) for _, words in panel.y.ticks), default=0) * SMALL * 0.58
        how = {"rotation": 90, "ha": "right", "va": "center"}
        self._text(page, placed.x - widest - 14, placed.y + panel.height / 2, panel.y.title, NORMAL, **how)

    def _lines(self, axes: Any, paths: Iterable[Any], style: str) -> None:
        collection = import_extra("matplotlib.collections", extra="plot").LineCollection
        styles = {
            "solid": {"colors": colour("kept", self.theme), "linewidths": 1.35, "zorder": 2},
            "guide": {"colors": self.ground.faint, "linewidths": 0.8, "linestyles": [(0, (5, 4))], "zorder": 1.5},
            "edge": {"colors": "#ffffff", "linewidths": 1.0, "linestyles": [(0, (5, 4))], "zorder": 2.2},
            "contour": {"colors": "#ffffff", "alpha": 0.65, "linewidths": 0.8, "zorder": 2},
        }
        axes.add_collection(collection([list(path) for path in paths], **styles[style]), autolim=False)

    def _marks(self, axes: Any, role: Role, places: list[tuple[float, float]]) -> None:
        style, tone = STYLES[role], colour(role, self.theme)
        ring, framed = style.shape in HOLLOW, role in ("corner", "mean")
        how: dict[str, Any] = {
            "marker": self._path(role),
            "s": (2 * style.size * POINT) ** 2,
            "facecolor": self.ground.paper if ring else tone,
            "edgecolor": tone if ring else "#111111" if framed else self.ground.paper,
            "linewidth": 1.3 if ring else 1.0 if framed else 0.6,
            "alpha": 0.8 if role == "ingredient" else None,
            "zorder": 3 if role == "ingredient" else 4,
        }
        x, y = zip(*places, strict=True)
        axes.scatter(x, y, **how, clip_on=False)

    def _path(self, role: Role) -> Any:
        """The shape of a role as matplotlib takes it: y upwards."""
        if role not in self.paths:
            path = import_extra("matplotlib.path", extra="plot").Path
            corners = shape_points(STYLES[role].shape, 0.5)
            closed = [(x, -y) for x, y in [*corners, *corners[:1]]]
            self.paths[role] = path(closed, closed=True) if corners else path.circle(radius=0.5)
        return self.paths[role]

    def _whiskers(self, axes: Any, role: Role, marks: list[Mark]) -> None:
        tone = colour(role, self.theme)
        alpha, zorder = (0.3, 2.5) if role == "ingredient" else (0.85, 3.5)
        for along in ("x", "y"):
            known = [m for m in marks if (m.x_error if along == "x" else m.y_error) is not None]
            if not known:
                continue
            errors = [m.x_error if along == "x" else m.y_error for m in known]
            how = {"linestyle": "none", "ecolor": tone, "alpha": alpha, "elinewidth": 0.9, "zorder": zorder}
            axes.errorbar([m.x for m in known], [m.y for m in known], **{f"{along}err": errors}, **how)

    def _cells(self, axes: Any, placed: Placed, cells: Cells) -> None:
        colours = import_extra("matplotlib.colors", extra="plot")
        tones = colours.ListedColormap(ramp(cells.ramp, self.theme), bad=self.ground.paper)
        scale, panel = cells.scale, placed.panel
        how = {"cmap": tones, "vmin": scale.low, "vmax": scale.high, "zorder": 1}
        rows = [[float("nan") if value is None else value for value in row] for row in cells.values]
        axes.pcolormesh(cells.x_edges, cells.y_edges, rows, **how)
        bar = self._axes(placed.x + panel.width + 14, placed.y, SCALE_WIDTH, panel.height)
        steps = [[step] for step in range(len(tones.colors))]
        bar.imshow(steps, cmap=tones, aspect="auto", origin="lower", extent=(0, 1, scale.low, scale.high))
        bar.set(xticks=[], ylim=(scale.low, scale.high))
        bar.yaxis.tick_right()
        bar.set_yticks([value for value, _ in scale.ticks], [words for _, words in scale.ticks])
        bar.tick_params(colors=self.ground.faint, labelsize=SMALL * POINT, length=0, pad=3)
        for spine in bar.spines.values():
            spine.set_visible(False)
        page, x = self.canvas.axes[0], placed.x + panel.width + 14 + SCALE_WIDTH + 44
        how = {"rotation": 90, "ha": "left", "va": "center"}
        self._text(page, x, placed.y + panel.height / 2, scale.title, NORMAL, **how)
