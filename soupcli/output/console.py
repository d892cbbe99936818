"""The only place that prints: the result to stdout, everything else to stderr.

Colours follow NO_COLOR and FORCE_COLOR. Bars are drawn where stderr is a terminal; elsewhere every finished
evaluation is one plain line.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from soupcli import processes

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as Bars
    from rich.progress import TaskID
    from rich.table import Table as RichTable


def _rich(*, stderr: bool) -> RichConsole:
    from rich.console import Console as RichConsole

    stream = sys.stderr if stderr else sys.stdout
    console = RichConsole(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:  # a pipe gets whole lines: nothing is cut to a width that no one looks at
        console.width = UNLIMITED
    return console


UNLIMITED = 100_000  # columns of a line
LONGEST = 2_000  # letters of an error
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\n")}
NARROW = 100  # columns of a terminal
LEAST = 24  # columns that the first column of a table keeps when others are many
GAP = 3  # columns between two columns


class Table:
    """Rows of text under headings, the result of a command for people."""

    def __init__(self, *headings: str) -> None:
        """Headings that begin with `>` are of columns of numbers, aligned to the right."""
        self.headings = headings
        self.rows: list[tuple[list[str], str | None]] = []

    def add(self, *cells: str, style: str | None = None) -> None:
        """One row; `style` is a colour of rich."""
        self.rows.append((list(cells), style))

    def extend(self, heading: str, cells: Sequence[str]) -> None:
        """A further column, unless all of its cells are empty."""
        if any(cells):
            self.headings = (*self.headings, heading)
            for (row, _), cell in zip(self.rows, cells, strict=True):
                row.append(cell)


def print_result(text: str) -> None:
    """Text of the result, as it is."""
    if not processes.is_first():
        return
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def print_sentences(sentences: Sequence[str]) -> None:
    """Sentences of the result, one a line; on a terminal they break between words."""
    console = _rich(stderr=False)
    if console.is_terminal:
        fill = partial(textwrap.fill, width=console.width, subsequent_indent="  ", break_on_hyphens=False)
        sentences = [fill(sentence) for sentence in sentences]
    print_result("\n".join(sentences) + "\n")


def print_text(text: str, *, indent: int = 0, style: str | None = None) -> None:
    """A sentence of the result: wrapped at words on a terminal, one line in a pipe."""
    from rich.padding import Padding
    from rich.text import Text

    console = _rich(stderr=False)
    with console.capture() as capture:
        console.print(Padding(Text(text, style=style or ""), (0, 0, 0, indent), expand=False))
    print_result("\n".join(line.rstrip() for line in capture.get().splitlines()))


def print_table(table: Table) -> None:
    """A table of the result: with rules on a terminal, plain columns in a pipe.

    Nothing is ever cut: columns that do not fit stand below, the first column beside them again.
    """
    console = _rich(stderr=False)
    with console.capture() as capture:
        for columns in _blocks(table, console.width):
            console.print(_block(table, columns, ruled=console.is_terminal))
            console.print()
    print_result("\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n"))


def _blocks(table: Table, width: int) -> list[list[int]]:
    """The columns that stand side by side; the first one in every block."""
    from rich.cells import cell_len

    def needed(column: int) -> int:
        heading = table.headings[column].removeprefix(">")
        return max(cell_len(text) for text in (heading, *(cells[column] for cells, _ in table.rows)))

    blocks: list[list[int]] = [[0]]
    first = min(needed(0), LEAST)
    left = width - first
    for column in range(1, len(table.headings)):
        if GAP + needed(column) > left and len(blocks[-1]) > 1:
            blocks.append([0])
            left = width - first
        blocks[-1].append(column)
        left -= GAP + needed(column)
    return blocks


def _block(table: Table, columns: Sequence[int], *, ruled: bool) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    block = RichTable(
        box=box.SIMPLE_HEAD if ruled else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1) if ruled else (0, 2, 0, 0),
    )
    for column in columns:
        heading = table.headings[column]
        right = heading.startswith(">")
        block.add_column(
            Text(heading.removeprefix(">")),
            justify="right" if right else "left",
            no_wrap=column > 0 or not ruled,
            overflow="fold",
        )
    for cells, style in table.rows:
        block.add_row(*(Text(cells[column]) for column in columns), style=style)
    return block


def note(text: str) -> None:
    """A line for people that is not the result."""
    if processes.is_first():
        _to_stderr(text)


def warn(text: str) -> None:
    """A line that should be read."""
    if processes.is_first():
        _to_stderr(f"warning: {text}", style="yellow")


def fail(text: str, hint: str | None = None) -> None:
    """An error: the line, then after a blank one what to do; what files made up of it instructs no terminal.

    Of several processes that fail, the first one's alone.
    """
    if not processes.fails_first():
        return
    _to_stderr(_legible(text), style="bold red")
    if hint:
        _to_stderr(f"\nhint: {_legible(hint)}")


def _legible(text: str) -> str:
    """Without control characters, and without the middle of a line that no one could read."""
    lines = text.translate(_CONTROLS).split("\n")
    return "\n".join(f"{line[:LONGEST]} ... {line[-100:]}" if len(line) > LONGEST + 100 else line for line in lines)


def show_cursor() -> None:
    """Gives a terminal its cursor back, where bars were not taken off the screen."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K\x1b[?25h")
        sys.stderr.flush()


def _to_stderr(text: str, style: str | None = None) -> None:
    _rich(stderr=True).print(text, style=style, soft_wrap=True)


def print_lines(paths: Sequence[str]) -> None:
    """One path a line: the result with --quiet."""
    print_result("".join(f"{path}\n" for path in paths))


class ProgressReporter:
    """Turns progress calls into bars on a terminal, into lines elsewhere, into nothing where it is silenced."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent or not processes.is_first()
        self.terminal = sys.stderr.isatty()
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, task: str, done: int, total: int, *, note: str = "") -> None:
        """See soupcli.progress.Progress."""
        if self.silent:
            return
        if self.terminal:
            self._draw(task, done, total, note)
        elif note:
            _to_stderr(f"{task} {done}/{total}: {note}")

    def _draw(self, task: str, done: int, total: int, note: str) -> None:
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        known = self._tasks.get(task)
        if known is None:
            known = self._tasks[task] = self._bars.add_task(task, total=total, note="")
        self._bars.update(known, completed=done, total=total)
        if note:
            self._bars.update(known, note=note)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(task))

    def close(self) -> None:
        """Takes the bars off the screen."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._tasks = None, {}

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _new_bars() -> Bars:
    """Where the line is narrow the note, with its score at the end, has the room; if need be it is what is cut."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = _rich(stderr=True)
    narrow = console.width < NARROW
    note = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=8 if narrow else 24, table_column=Column(no_wrap=True)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *([] if narrow else [TimeElapsedColumn(table_column=Column(no_wrap=True))]),
        TextColumn("{task.fields[note]}", style="dim", markup=False, table_column=note),
        expand=True,
        console=console,
        transient=True,
        redirect_stdout=False,  # bars may begin while the user's code has its own stdout, which would then stay
    )
