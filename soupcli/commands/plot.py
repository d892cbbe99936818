"""`soup plot soup.json`: figures of a report, as PNG or SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from soupcli.errors import UsageError
from soupcli.figures.draw import matplotlib, svg
from soupcli.figures.registry import KINDS, possible
from soupcli.figures.reports import Reports, read
from soupcli.files.atomic import write_whole
from soupcli.files.own_file import check_target
from soupcli.output import console
from soupcli.report.report_file import taken_from
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.cli.options.without_checkpoints import PlotOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.figures.draw.palette import Theme
    from soupcli.figures.figure import Figure

Suffix = Literal["png", "svg"]


def plot(options: PlotOptions, _invocation: Invocation) -> int:
    """Draw the figures of a report, as PNG or SVG."""
    suffix = _suffix(options.out)
    with taken_from(options.reports):
        reports = read(options.reports)
        figures = _asked_for(reports, options.kind) if options.kind else _possible(reports, quiet=options.quiet)
    if not figures:
        raise UsageError(
            f"{reports.name}: holds nothing to draw",
            hint="reports of soup greedy, learned, landscape, pairs and inspect do, and of rank on several sets",
        )
    files = {figure.kind: _file(options, figure) for figure in figures}
    for file in files.values():
        check_target(file, "picture")
    with taken_from(options.reports):
        pictures = {figure.kind: _drawn(figure, suffix, options.theme) for figure in figures}
    for kind, picture in pictures.items():
        write_whole(files[kind], picture)
    console.print_lines([str(file) for file in files.values()])
    return 0


def _drawn(figure: Figure, suffix: Suffix, theme: Theme) -> bytes:
    """Return the picture's bytes. Raises MissingExtra for a PNG if matplotlib is absent."""
    return (
        svg.document(figure, theme).encode("utf-8", "backslashreplace")
        if suffix == "svg"
        else matplotlib.drawn(figure, theme)
    )


def _suffix(out: Path) -> Suffix:
    suffixes: dict[str, Suffix] = {".png": "png", ".svg": "svg"}
    if out.suffix.lower() not in suffixes:
        raise UsageError(f"--out {out}: a picture ends in {' or '.join(suffixes)}", hint="soup report writes HTML")
    return suffixes[out.suffix.lower()]


def _asked_for(reports: Reports, kinds: Sequence[str]) -> list[Figure]:
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(
                f"--kind {kind}: no such figure{suggestion(kind, KINDS)}", hint=f"one of {', '.join(KINDS)}"
            )
    return [KINDS[kind](reports) for kind in dict.fromkeys(kinds)]


def _possible(reports: Reports, *, quiet: bool) -> list[Figure]:
    """Return every figure that the reports allow. Figures that lack something are listed with the reason."""
    figures, missing = possible(reports)
    if not quiet:
        for error in missing:
            console.note(f"not drawn: {error}", f"hint: {error.hint}")
    return figures


def _file(options: PlotOptions, figure: Figure) -> Path:
    if options.kind and len(set(options.kind)) == 1:
        return options.out
    return options.out.with_name(f"{options.out.stem}-{figure.kind}{options.out.suffix}")
