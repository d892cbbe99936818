"""`soup report soup.json`: a report as one HTML page that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.figures.page.page import page
from soupcli.figures.reports import read
from soupcli.files.atomic import check_file, write_whole
from soupcli.output import console

if TYPE_CHECKING:
    from soupcli.cli.options import ReportPageOptions
    from soupcli.cli.parsing import Invocation


def report(options: ReportPageOptions, _invocation: Invocation) -> int:
    """Write a report as one HTML page that needs nothing else.

    Scores with their standard errors, figures, steps, members, cost, versions and the recipe, on light and dark ground
    and on paper. It loads nothing from elsewhere. Like soup plot it takes several reports: a greedy soup's own has its
    ingredients' scores on the selecting set alone, soup rank --val A B --report rank.json has them on all.
    """
    check_file(options.out)
    write_whole(options.out, page(read(options.reports)))
    console.print_lines([str(options.out)])
    return 0
