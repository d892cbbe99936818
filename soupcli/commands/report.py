"""`soup report soup.json`: a report as one HTML page that needs nothing else, or as Markdown with `--out report.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.cli.parsing import DONE, Invocation
from soupcli.figures.page.page import page
from soupcli.figures.reports import read
from soupcli.files.atomic import write_whole
from soupcli.files.own_file import check_target
from soupcli.output import console, markdown
from soupcli.report.report_file import taken_from

if TYPE_CHECKING:
    from soupcli.cli.options.without_checkpoints import ReportPageOptions


def report(options: ReportPageOptions, _invocation: Invocation) -> int:
    """Write reports as one HTML page that needs nothing else, or one after the other as Markdown."""
    check_target(options.out, "page")
    with taken_from(options.reports):
        reports = read(options.reports)
        if options.out.suffix == ".md":
            text = "\n".join(markdown.document(source.report) for source in reports.sources)
        else:
            text = page(reports)
    write_whole(options.out, text)
    console.print_lines([str(options.out)])
    return DONE
