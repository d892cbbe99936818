"""The only place that prints: the result to stdout, everything else to stderr.

Names in files, recipes and errors are data. All text except JSON, XML and annotations goes through `legible`, so no
name moves a cursor, begins a line or is a command of a CI system. Colours follow NO_COLOR and FORCE_COLOR. Bars are
drawn if stderr is a terminal; elsewhere every finished evaluation is one plain line.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, TextIO, cast

from soupcli import processes
from soupcli.errors import OutputError
from soupcli.figures.figure import short_names
from soupcli.report.tables import Table
from soupcli.wording import legible, legible_json

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.table import Table as RichTable


class Stderr:
    """A stderr for rich. An error in writing to it is ignored: it never ends the run."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # not sys.stderr: while rich draws bars, that is rich's own
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with contextlib.suppress(OutputError):
            _write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        """Everything is flushed when it is written."""

    def isatty(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno() if self._stream is not None else -1


def _write(stream: TextIO | None, text: str) -> None:
    """Write and flush. If nobody reads the stream any more, this text and all later text is dropped.

    Raises OutputError if the text cannot be written for another reason, such as a full disk.
    """
    if stream is None or stream.closed:
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError as lost:
        _drop(stream)
        if not isinstance(lost, BrokenPipeError):
            raise OutputError(f"stdout: {lost.strerror}", hint="the result could not be printed there") from lost


def _drop(stream: TextIO) -> None:
    """Discard the stream's buffer and everything that is written to it later."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def drop_result() -> None:
    """Discard stdout's buffer and everything that follows, because nobody reads it."""
    _drop(sys.stdout)


def flush() -> None:
    """Write what is left in stdout's buffer, such as help texts. Raises OutputError if that fails."""
    _write(sys.stdout, "")


def rich_console(*, stderr: bool, widgets: bool = False) -> RichConsole:
    from rich.console import Console as RichConsole

    stream = cast("TextIO", Stderr(sys.stderr)) if stderr else sys.stdout
    console = RichConsole(
        file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False, force_jupyter=widgets
    )
    # A pipe gets whole lines: nothing is cut to a width that no one looks at. COLUMNS=0 is of one that is not known.
    if not console.is_terminal or console.width < 1:
        console.width = UNLIMITED
    return console


COLOURED = {"FORCE_COLOR", "TTY_COMPATIBLE"}  # variables that have rich take what is no terminal for one
UNLIMITED = 100_000  # columns of a line
LONGEST = 2_000  # letters of an error
LEAST = 24  # columns that the first column of a table keeps when others are many
GAP = 3  # columns between two columns


class Paragraph(NamedTuple):
    """A sentence with its own indent or weight."""

    text: str
    indent: int = 0
    is_bold: bool = False


_results: ContextVar[bool] = ContextVar("results", default=True)  # whether results are printed
notes_shown: ContextVar[bool] = ContextVar("notes", default=True)  # whether anything else is


@contextlib.contextmanager
def hushed(*, notes: bool) -> Iterator[None]:
    """Print no result within the block, and nothing else unless `notes`."""
    tokens = _results.set(False), notes_shown.set(notes)
    try:
        yield
    finally:
        _results.reset(tokens[0])
        notes_shown.reset(tokens[1])


def print_json(text: str) -> None:
    """Print a JSON document, the result with --json."""
    _print(legible_json(text))


def print_formatted(text: str) -> None:
    """Print a text whose format already escapes names: XML, annotations."""
    _print(text)


def print_lines(lines: Sequence[str]) -> None:
    """Print lines of the result; with --quiet one path a line."""
    _print("".join(f"{legible(line)}\n" for line in lines))


def print_report(parts: Iterable[Table | Sequence[str | Paragraph]]) -> None:
    """Print tables and sentences of the result, with an empty line between two parts.

    On a terminal paths that would break into lines are named by what differs; the last line says one of them in full.
    """
    found = list(parts)
    names = _names_that_fit([row[0] for part in found if isinstance(part, Table) for row in part.rows])
    for number, part in enumerate(found):
        if number:
            _print("\n")
        if isinstance(part, Table):
            rows = [[_PATH.sub(lambda path: names.get(path[0], path[0]), row[0]), *row[1:]] for row in part.rows]
            print_table(part._replace(rows=rows))
        else:
            print_sentences(part)
    if names:
        path, name = next(iter(names.items()))
        print_sentences([f"{name} is {path}, the others alike"])


def _names_that_fit(labels: Sequence[str]) -> dict[str, str]:
    """Short names of the paths in the labels of rows; none off a terminal, and if all labels fit as they are."""
    paths = list(dict.fromkeys(found[0] for label in labels if (found := _PATH.search(label))))
    if len(paths) < 2 or not _may_colour(sys.stdout):
        return {}
    console = rich_console(stderr=False)
    room = max(LEAST, console.width // 3)
    names = dict(zip(paths, short_names(paths, room - len("()")), strict=True))
    fits = max(map(len, labels)) <= room or len(set(names.values())) < len(names)
    return {} if fits or not console.is_terminal else names


_PATH = re.compile(r"(?<![^\s()])[^\s()]*/[^\s()]*")  # tried at the beginning of words alone


def print_sentences(sentences: Sequence[str | Paragraph]) -> None:
    """Print sentences of the result, one a line. On a terminal they wrap between words."""
    lines = [Paragraph(one) if isinstance(one, str) else one for one in sentences]
    if not _may_colour(sys.stdout):
        _print("".join(f"{' ' * indent}{legible(text)}\n" for text, indent, _ in lines))
        return
    from rich.text import Text

    console = rich_console(stderr=False)
    with console.capture() as capture:
        for text, indent, is_bold in lines:
            shown = " " * indent + legible(text)
            if console.is_terminal:
                shown = _wrapped(shown, console.width, " " * (indent or 2))
            console.print(Text(shown, style="bold" if is_bold else ""), soft_wrap=True)
    _print(capture.get())


def _wrapped(line: str, width: int, after: str) -> str:
    return textwrap.fill(line, width, subsequent_indent=after, break_on_hyphens=False, break_long_words=False)


def _print(text: str) -> None:
    if text and _results.get() and processes.is_first():
        _write(sys.stdout, text if text.endswith("\n") else text + "\n")


def print_table(table: Table) -> None:
    """Print a table of the result: with rules on a terminal, as plain columns in a pipe.

    No cell is ever cut. Columns that do not fit come below, next to the first column again.
    """
    if not _may_colour(sys.stdout):
        _print(_plain(table))
        return
    console = rich_console(stderr=False)
    with console.capture() as capture:
        for columns in _blocks(table, console.width):
            console.print(_block(table, columns, console.width, ruled=console.is_terminal))
            console.print()
    _print("\n".join(line.rstrip() for line in capture.get().split("\n")).strip("\n"))


def _plain(table: Table) -> str:
    """The table for a pipe, as rich would print it without rules: its import is a tenth of a kept ranking."""
    from rich.cells import cell_len

    rows = [[column.heading for column in table.columns], *table.rows]
    columns = []
    for (_, is_number), texts in zip(table.columns, zip(*rows, strict=True), strict=True):
        shown = [legible(text) for text in texts]
        widths = [cell_len(text) for text in shown]
        spaces = [" " * (max(widths) - width) for width in widths]
        columns.append([gap + text if is_number else text + gap for gap, text in zip(spaces, shown, strict=True)])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True)).strip("\n")


def _blocks(table: Table, width: int) -> list[list[int]]:
    """Return the columns of each block. The first column is in every block."""
    blocks: list[list[int]] = [[0]]
    first = min(_needed(table, 0), LEAST)
    left = width - first
    for column in range(1, len(table.columns)):
        if GAP + _needed(table, column) > left and len(blocks[-1]) > 1:
            blocks.append([0])
            left = width - first
        blocks[-1].append(column)
        left -= GAP + _needed(table, column)
    return blocks


def _needed(table: Table, column: int, *, words: bool = False) -> int:
    """Return the columns of a terminal that the texts of a column take, or their longest word if they may wrap."""
    from rich.cells import cell_len

    texts = [table.columns[column].heading, *(row[column] for row in table.rows)]
    return max(cell_len(legible(part)) for text in texts for part in (text.split() if words else [text]) or [""])


def _block(table: Table, columns: Sequence[int], width: int, *, ruled: bool) -> RichTable:
    """Return some columns as a table of rich. Texts wrap if it is wider than `width`, numbers never."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    block = RichTable(
        box=box.SIMPLE_HEAD if ruled else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1) if ruled else (0, 2, 0, 0),
    )
    others = (_needed(table, column, words=not table.columns[column].is_number) for column in columns[1:])
    fits = _needed(table, 0) + sum(GAP + other for other in others) <= width
    for column in columns:
        heading, is_number = table.columns[column]
        block.add_column(
            Text(legible(heading)),
            justify="right" if is_number else "left",
            no_wrap=not ruled or (is_number if column else fits),
            overflow="fold",
        )
    for row in table.rows:
        block.add_row(*(Text(legible(row[column])) for column in columns))
    return block


def note(*lines: str) -> None:
    """Print lines to stderr that are not the result."""
    if processes.is_first():
        to_stderr("\n".join(map(legible, lines)), wraps=True)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    if processes.is_first():
        to_stderr(f"warning: {legible(text)}", style="yellow", wraps=True)


def fail(*lines: str, hint: str | None = None) -> None:
    """Print an error and, after a blank line, its hint. If several processes fail, only the first one prints."""
    if not processes.fails_first():
        return
    to_stderr("\n".join(map(_shortened, lines)), style="bold red")
    if hint:
        to_stderr("\n".join(["", *(_shortened(line) for line in f"hint: {hint}".split("\n"))]))
    processes.have_failed()


def _shortened(line: str) -> str:
    """Return the line without its middle if it is very long."""
    line = legible(line)
    return f"{line[:LONGEST]} ... {line[-100:]}" if len(line) > LONGEST + 100 else line


def print_traceback() -> None:
    """Print the traceback of the exception that is being handled, for SOUP_DEBUG=1."""
    Stderr(sys.stderr).write(traceback.format_exc())


def show_cursor() -> None:
    """Show the terminal's cursor again, in case bars were left on the screen."""
    stderr = Stderr(sys.stderr)
    if stderr.isatty():
        stderr.write("\r\x1b[K\x1b[?25h")


def to_stderr(text: str, style: str | None = None, *, wraps: bool = False) -> None:
    """Print a text that is not the result. On a terminal it wraps between words, unless commands are copied from it."""
    if not notes_shown.get():
        return
    stderr = Stderr(sys.stderr)
    if _may_colour(stderr):
        console = rich_console(stderr=True)
        if wraps and console.is_terminal:
            text = "\n".join(_wrapped(line, console.width, "  ") for line in text.split("\n"))
        console.print(text, style=style, soft_wrap=True)
    else:  # the same letters, at once
        stderr.write(f"{text.expandtabs()}\n")


def _may_colour(stream: TextIO | Stderr) -> bool:
    """Whether rich has a say in what is printed there: elsewhere the same letters go out without it."""
    return stream.isatty() or bool(COLOURED & os.environ.keys())
