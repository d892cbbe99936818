"""`soup greedy --windows`: tries the mean of a run's last N checkpoints for several N, and takes the best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.checkpoints.window import along_one_run
from soupcli.errors import UsageError
from soupcli.mixing.mixture import Mixture
from soupcli.run.gates import Gatekeeper, check_gates
from soupcli.run.methods.decay import decayed
from soupcli.run.methods.last_steps import Rival, finish_search
from soupcli.run.methods.objective import chosen_by
from soupcli.soups.search import SearchResult
from soupcli.soups.weighted import weighted
from soupcli.soups.windows import sizes_tried, windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.soups import GreedyOptions
    from soupcli.run.make_soup import FinishedSoup
    from soupcli.run.run import Run
    from soupcli.soups.greedy import Foresee


def check_windows(run: Run, options: GreedyOptions) -> None:
    """Raises UsageError if the run is shorter than a window, and for flags that need a ranking."""
    sizes = run.recipe.greedy.windows
    if sizes is None:
        return
    for flag, given in (("--scores", options.scores), ("--logits", options.logits)):
        if given is not None:
            raise UsageError(
                f"--windows: {flag} {given} is for a ranking, and windows need none",
                hint=f"leave out --windows or {flag}",
            )
    if not sizes_tried(sizes):
        raise UsageError("--windows: 1 is the last checkpoint alone, which is tried anyway", hint="--windows 4,8,16")
    for size in sizes_tried(sizes):
        if size > len(run.checkpoints):
            raise UsageError(
                f"--windows: {size} checkpoints are asked for, {len(run.checkpoints)} are there",
                hint=f"--windows {','.join(str(n) for n in sizes_tried(sizes) if n <= len(run.checkpoints)) or 2}",
            )
        decayed(_in_order(run)[-size:], run.recipe.greedy.decay)  # a file may have other intervals


def window_evaluations(run: Run) -> int:
    """Return the number of scores that the windows need on the selecting set."""
    return 1 + len(sizes_tried(run.recipe.greedy.windows or []))


def finish_windows(run: Run, options: GreedyOptions) -> FinishedSoup:
    """Try the windows, then score the soup and the last checkpoint on the sets that do not select."""
    check_gates(run)
    ordered = _in_order(run)
    last = ordered[-1]
    average = run.average(last)
    alone = Mixture.uniform([last])
    with run.phase("rank") as progress:
        choice = chosen_by(run, [last], progress)
    keeper = Gatekeeper(run, alone, choice.alone[last])

    def mix(members: Sequence[Checkpoint]) -> Mixture:
        mean = average(members)
        weights = decayed(members, run.recipe.greedy.decay) if len(members) > 1 else None
        return weighted(mean.members, weights, dtype=mean.dtype, keep_from=mean.keep_from)

    with run.phase("greedy") as progress:
        sizes = run.recipe.greedy.windows or []
        found = windows(
            ordered, sizes, keeper.guarded(choice.evaluate), mix=mix, foresee=all_at_once(run), progress=progress
        )
    return finish_search(
        run,
        SearchResult(found, [(ordered, found)]),
        choice,
        keeper,
        Rival("last checkpoint", last),
        ordered[::-1],
        with_uniform=options.with_uniform,
    )


def all_at_once(run: Run) -> Foresee:
    """Return the function that announces trials, so that processes and jobs evaluate them side by side."""

    def foresee(coming: Iterator[Mixture]) -> AbstractContextManager[None]:
        return run.evaluators.expecting(list(coming))

    return foresee


def _in_order(run: Run) -> list[Checkpoint]:
    return along_one_run(run.checkpoints, "--windows")
