"""Progress as bars on a terminal, and as lines elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.wording import legible

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID
from soupcli.output.console import Stderr, notes_shown, rich_console, to_stderr

NARROW = 100  # columns of a terminal


def _in_notebook() -> bool:
    """Whether this is a notebook that can draw bars: in a kernel of Jupyter, with ipywidgets."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel") and importlib.util.find_spec("ipywidgets") is not None


class ProgressReporter:
    """Turns progress calls into bars on a terminal, into lines elsewhere, into nothing if `silent`."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent or not notes_shown.get() or not processes.is_first()
        self._widgets = not self.silent and _in_notebook()
        self.terminal = Stderr(sys.stderr).isatty() or self._widgets
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, task: str, done: int, total: int, *, note: str = "") -> None:
        """See soupcli.progress.Progress."""
        if self.silent:
            return
        if self.terminal:
            self._draw(task, done, total, note)
        elif note:
            to_stderr(legible(f"{task} {done}/{total}: {note}"))

    def _draw(self, task: str, done: int, total: int, note: str) -> None:
        if self._bars is None:
            self._bars = _new_bars(widgets=self._widgets)
            self._bars.start()
        known = self._tasks.get(task)
        if known is None:
            known = self._tasks[task] = self._bars.add_task(legible(task), total=total, note="")
        self._bars.update(known, completed=done, total=total)
        if note:
            self._bars.update(known, note="\n".join(map(legible, note.split("\n"))))
        if done >= total:
            self._bars.remove_task(self._tasks.pop(task))

    def close(self) -> None:
        """Remove the bars from the screen."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._tasks = None, {}

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _new_bars(*, widgets: bool) -> Bars:
    """Return the bars. On a narrow terminal the note, which ends with the score, gets the room and may be cut."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = rich_console(stderr=True, widgets=widgets)
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
