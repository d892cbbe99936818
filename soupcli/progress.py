"""The one callback through which long loops say how far they are.

Whatever loops over ingredients, tensors or batches takes a `progress: Progress` and calls it;
`soupcli.output.console` turns the calls into bars on a terminal and into plain lines elsewhere.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with how much of a task is done; the task ends when `done` reaches `total`."""

    def __call__(self, task: str, done: int, total: int, *, note: str = "") -> None:
        """`task`: what is going on, e.g. "evaluating runs/a". `done` of `total`: in units of the task.

        `note`: the outcome, shown when the task ends, e.g. "accuracy 0.9512".
        """


def silent(task: str, done: int, total: int, *, note: str = "") -> None:
    """Report nothing: the default of every function that reports progress."""


def unsaid(text: str) -> None:
    """A callback that ignores messages."""
