"""`soup report soup.json`: a report as one HTML page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from soupcli.cli import console
from soupcli.cli.commands import Invocation, command
from soupcli.cli.options import ReportFiles


@dataclass(frozen=True, kw_only=True)
class ReportPageOptions:
    """Options of `soup report`."""

    reports: ReportFiles
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html")


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    command(app, "report", examples="soup report soup/soup.json rank.json --out report.html")(report)


def report(options: ReportPageOptions, invocation: Invocation) -> int:
    """Write a report as one HTML page that needs nothing else.

    Scores with their standard errors, figures, steps, members, cost, versions and the recipe, on light and dark ground
    and on paper. It loads nothing from elsewhere. Like soup plot it takes several reports: a greedy soup's own has its
    ingredients' scores on the selecting set alone, soup rank --val A B --report rank.json has them on all.
    """
    from soupcli.checkpoints.writing import check_file, write_whole
    from soupcli.figures.page import page
    from soupcli.figures.reports import read

    check_file(options.out)
    write_whole(options.out, page(read(options.reports)))
    console.print_lines([str(options.out)])
    return 0
