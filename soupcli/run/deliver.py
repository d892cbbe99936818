"""Delivers the report of a command that writes no soup: to its file, to trackers, to stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.files.atomic import write_whole
from soupcli.files.own_file import check_target
from soupcli.output import console

if TYPE_CHECKING:
    from soupcli.cli.options.common import ReportOptions
    from soupcli.report.report import Report
    from soupcli.run.trackers import RunTrackers


def is_kept(options: ReportOptions) -> bool:
    """Whether the report itself goes to a file, to stdout or to trackers; else it is only shown as text."""
    return options.report is not None or options.as_json or bool(options.report_to) or options.relative


def deliver(options: ReportOptions, report: Report, trackers: RunTrackers, *, paths: Sequence[str]) -> bool:
    """Write the report to --report's file and to trackers. Print it with --json, or print `paths` with --quiet.

    Returns whether the result still has to be printed.
    """
    if options.report is not None:
        check_target(options.report, "report")  # it may have come meanwhile
        write_whole(options.report, report.to_json())
    trackers.finished(report)
    if options.as_json:
        console.print_json(report.to_json())
    elif options.quiet:
        console.print_lines(paths)
    return not (options.as_json or options.quiet)
