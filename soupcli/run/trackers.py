"""Reports a run to experiment trackers: each evaluation and each round of a fit, and the report at the end.

    trackers = RunTrackers(["wandb"], about)
    trackers.evaluated("val", mixture, score)
    trackers.finished(report, folder)          # sent by close, after the result was printed
    trackers.close(failed=False)

A tracker that fails once is left out from then on, with a warning: the soup does not depend on it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.errors import SoupError
from soupcli.files.unfinished import scratch_folder
from soupcli.output import console
from soupcli.output.trackers.table import tracker_named
from soupcli.output.trackers.tracker import Cell, TrackedRun, TrackedTable, Tracker
from soupcli.user_code.hooks import unheard

if TYPE_CHECKING:
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.report.report import Report
    from soupcli.report.scores import Scores


class RunTrackers:
    """The trackers of a run. Raises UsageError for an unknown one, MissingExtra for one that is not installed."""

    def __init__(self, names: Iterable[str], about: Callable[[], TrackedRun]) -> None:
        wanted = list(dict.fromkeys(names)) if processes.is_first() else []
        with _library():
            self._waiting = {name: tracker_named(name) for name in wanted}
        self._about = about
        self._open: dict[str, Tracker] = {}
        self._step = 0
        self._result: tuple[Report, Path | None] | None = None

    def begin(self) -> None:
        """Begin the trackers' runs. Raises SoupError if a tracker refuses, before anything is evaluated."""
        while self._waiting:
            name, start = self._waiting.popitem()
            try:
                with _library():
                    self._open[name] = start(self._about())
            except Exception as cause:
                raise SoupError(
                    f"--report-to {name}: {_said(cause)}", hint=f"log in to {name}, or use its offline mode"
                ) from cause

    def evaluated(self, name: str, weights: Mixture, score: Score) -> None:
        """Log the score of an ingredient or a mixture on the set `name`."""
        alone = len(weights.members) == 1 and weights.is_uniform
        place = f"{'ingredient' if alone else 'mixture'}/{name}"
        values = {f"{place}/{metric}": value.value for metric, value in score.metrics.items()}
        if score.stopped is not None:
            values = {f"{place}/{score.selecting} bound": score.stopped.bound}
        self._log({**values, "evaluated/members": len(weights.members), "evaluated/examples": score.examples})

    def fitted(self, step: int, curves: Mapping[str, float]) -> None:
        """Log a round of a fit that ended after `step` steps."""
        self._log({"fit/step": step, **{f"fit/{name}": value for name, value in curves.items()}})

    def finished(self, report: Report, folder: Path | None = None) -> None:
        """Keep the report, and the soup's folder if one was written, for `close` to send."""
        self._result = report, folder

    def close(self, *, failed: bool) -> None:
        """Send the result, unless the run has failed, and end the trackers' runs."""
        if self._result is not None and self._open and not failed:
            self._send(*self._result)
        self._each(lambda tracker: tracker.close(failed=failed))
        self._open.clear()
        self._waiting.clear()

    def _send(self, report: Report, folder: Path | None) -> None:
        from soupcli.figures.page.pictures import page_and_figures

        page, drawn = page_and_figures(report)
        for step in report.steps:
            told = {"greedy/score": step.score, "greedy/threshold": step.threshold, "greedy/accepted": step.accepted}
            self._log({key: float(value) for key, value in told.items() if value is not None})
        self._each(lambda tracker: _tell(tracker, report, drawn))
        with scratch_folder() as aside:
            (aside / "report.json").write_text(report.to_json(), "utf-8")
            (aside / "report.html").write_text(page, "utf-8")
            for kind, text in drawn.items():
                (aside / f"{kind}.svg").write_text(text, "utf-8")
            self._each(lambda tracker: tracker.folder(aside, "report", "report"))
            if folder is not None:
                self._each(lambda tracker: tracker.folder(folder, _artifact(folder), "model"))
            self._each(lambda tracker: tracker.close(failed=False))
            self._open.clear()

    def _log(self, values: Mapping[str, float]) -> None:
        self._step += 1
        self._each(lambda tracker: tracker.log(values, self._step))

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                with _library():
                    do(tracker)
            except Exception as cause:  # noqa: BLE001 - libraries raise what they like, and the soup is worth more
                del self._open[name]
                console.warn(f"--report-to {name}: {_said(cause)}: nothing more is reported there")


@contextmanager
def _library() -> Iterator[None]:
    """Run a library's code. Its prints go to stderr, and files that it opens do not count as the user's."""
    with redirect_stdout(sys.stderr), unheard():
        yield


def _said(cause: BaseException) -> str:
    first = next(iter(str(cause).strip().splitlines()), "")
    return f"{type(cause).__name__}: {first}" if first else type(cause).__name__


def _artifact(folder: Path) -> str:
    """Return a name for an artifact, of only letters, digits and - _ ."""
    name = folder.resolve().name
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in name)


def _tell(tracker: Tracker, report: Report, drawn: Mapping[str, str]) -> None:
    tracker.summarize(dict(_summary(report)))
    for table in _tables(report):
        tracker.table(table)
    for kind, text in drawn.items():
        tracker.figure(kind, text)


def _summary(report: Report) -> Iterator[tuple[str, float]]:
    parts = {"soup": report.soup, "best": report.best, "uniform": report.uniform}
    for part, scored in parts.items():
        if scored is not None:
            for (name, metric), value in _values(scored.scores).items():
                yield f"{part}/{name}/{metric}", value
    for of in report.comparisons:
        if of.difference is not None and len({one.soup for one in report.comparisons}) == 1:
            yield f"gain/{of.set}/{of.metric}", of.difference
    if report.soup is not None:
        yield "soup/members", float(len(report.soup.members))
    yield "cost/examples", float(report.cost.examples)
    for phase, seconds in report.cost.seconds.items():
        yield f"cost/seconds/{phase}", seconds
    if report.gates:
        yield "gates/not met", float(sum(gate.met is False for gate in report.gates))


def _values(scores: Scores) -> dict[tuple[str, str], float]:
    return {
        (name, metric): math.nan if score.value is None else score.value
        for name, metrics in scores.items()
        for metric, score in metrics.items()
    }


def _tables(report: Report) -> Iterator[TrackedTable]:
    found = [_values(one.scores) for one in report.ingredients]
    columns = list(dict.fromkeys(column for scores in found for column in scores))
    rows: list[Sequence[Cell]] = [
        [one.path, one.hash, *(scores.get(column) for column in columns)]
        for one, scores in zip(report.ingredients, found, strict=True)
    ]
    yield TrackedTable("ingredients", ["path", "hash", *(f"{name} {metric}" for name, metric in columns)], rows)
    if report.steps:
        steps: list[Sequence[Cell]] = [
            [one.candidate, one.score, one.threshold, "yes" if one.accepted else "no", one.reason, one.seconds]
            for one in report.steps
        ]
        yield TrackedTable("steps", ["candidate", "score", "threshold", "accepted", "reason", "seconds"], steps)
    if report.soup is not None:
        pairs: list[Sequence[Cell]] = list(zip(report.soup.members, report.soup.weights, strict=True))
        yield TrackedTable("members", ["path", "weight"], pairs)
