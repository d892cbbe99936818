"""The result as Markdown, for the summary of a job and the text of a merge request.

    soup greedy ... --output-format markdown >> "$GITHUB_STEP_SUMMARY"
    soup report soup/soup.json --out report.md

It is what the terminal shows, in GitHub's dialect (https://github.github.com/gfm). Names are data: none of them is
Markdown, HTML, a link or a mention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from soupcli.files.own_file import MARKDOWN_START
from soupcli.output.text import report_text, soup_notes
from soupcli.report.tables import Table
from soupcli.wording import markdown as plain

if TYPE_CHECKING:
    from soupcli.output.console import Paragraph
    from soupcli.report.report import Report


def document(report: Report) -> str:
    """The report's tables and sentences under a heading, with its warnings and what was not averaged."""
    parts = [MARKDOWN_START, f"### soup {plain(report.command)}\n"]
    parts += [_warned(report.warnings)] if report.warnings else []
    for part in report_text(report):
        parts.append(_table(part) if isinstance(part, Table) else "\n".join(map(_item, part)) + "\n")
    if notes := list(soup_notes(report)):
        parts.append("\n".join(map(_item, notes)) + "\n")
    return "\n".join(parts)


def _warned(warnings: Sequence[str]) -> str:
    return "> [!WARNING]\n" + "".join(f"> - {plain(text)}\n" for text in warnings)


def _item(sentence: str | Paragraph) -> str:
    if isinstance(sentence, str):
        return f"- {plain(sentence)}"
    text = plain(sentence.text)
    return f"{' ' * sentence.indent}- {f'**{text}**' if sentence.is_bold else text}"


def _table(table: Table) -> str:
    return "\n".join(_lines(table)) + "\n"


def _lines(table: Table) -> Iterator[str]:
    yield _row([column.heading for column in table.columns])
    yield "| " + " | ".join("---:" if column.is_number else "---" for column in table.columns) + " |"
    yield from map(_row, table.rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(plain, cells)) + " |"
