"""Chooses the checkpoints to mix: between two steps, every Nth, the last ones, the best by a recorded metric.

kept, left_out = choose(checkpoints, recipe.window)        # e.g. window: {last: 8}: the last 8 of each run
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.training_record import TrainingRecord, order_by, record_of, value_of
from soupcli.errors import UsageError
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.recipe.methods import Window


class PassedOver(NamedTuple):
    """A checkpoint that is not mixed, with the reason."""

    checkpoint: Checkpoint
    reason: str


class Chosen(NamedTuple):
    """The checkpoints that are mixed, in order, and the others."""

    kept: list[Checkpoint]
    left_out: list[PassedOver]


def choose(checkpoints: Sequence[Checkpoint], window: Window) -> Chosen:
    """Keep the checkpoints that `window` selects, in their order.

    `every` and `last` count within each run, which is the checkpoints of one parent folder. Raises UsageError if it
    needs a step or a metric that a trainer did not record, or if nothing is left.
    """
    if not window.model_fields_set - {"group_by", "prefer"}:
        return Chosen(list(checkpoints), [])
    about = {checkpoint: record_of(checkpoint) for checkpoint in checkpoints}
    kept = list(checkpoints)
    left_out: dict[Checkpoint, str] = {}
    for flag, keep in (
        (_between_flag(window), _between),
        (f"--every {window.every}", _every),
        (f"--last {window.last}", _last),
        (f"--top {window.top} --by {window.by}", _top),
    ):
        found = keep(kept, about, window)
        left_out |= {one: f"{flag}{_known(about[one], window.by)}" for one in kept if one not in found}
        kept = [one for one in kept if one in found]
        if not kept:
            raise UsageError(f"{flag}: leaves none of {len(checkpoints)} checkpoints", hint=_steps_there(about))
    return Chosen(kept, [PassedOver(one, left_out[one]) for one in checkpoints if one in left_out])


def _between(kept: Sequence[Checkpoint], about: Mapping[Checkpoint, TrainingRecord], window: Window) -> set[Checkpoint]:
    if window.between is None:
        return set(kept)
    first, last = window.between
    return {one for one in kept if first <= _step(one, about[one], _between_flag(window)) <= last}


def _every(kept: Sequence[Checkpoint], about: Mapping[Checkpoint, TrainingRecord], window: Window) -> set[Checkpoint]:
    if window.every is None:
        return set(kept)
    runs = _runs(kept, about)
    for run in runs:
        _check_one_run(run, about, f"--every {window.every}")
    return {one for run in runs for one in run[:: -window.every]}


def _last(kept: Sequence[Checkpoint], about: Mapping[Checkpoint, TrainingRecord], window: Window) -> set[Checkpoint]:
    if window.last is None:
        return set(kept)
    runs = _runs(kept, about)
    for run in runs:
        _check_one_run(run, about, f"--last {window.last}", window.last)
    return {one for run in runs for one in run[-window.last :]}


def _top(kept: Sequence[Checkpoint], about: Mapping[Checkpoint, TrainingRecord], window: Window) -> set[Checkpoint]:
    """Return the best by the recorded metric; of equal ones the first by path."""
    if window.top is None or window.by is None:
        return set(kept)
    name = window.by.removeprefix("-").removeprefix("+")
    lacking = [one for one in kept if name not in about[one].metrics]
    if lacking and len(lacking) < len(kept):
        raise UsageError(
            f"--by {name}: {len(lacking)} of {len(kept)} checkpoints have no number of it, {lacking[0].path} the first",
            hint="their trainer recorded none, or NaN: leave them out of --ckpts; soup rank measures",
        )
    values = {one: value_of(name, about[one], one.path) for one in kept}
    sign = -1 if order_by(window.by).higher_is_better else 1
    return set(sorted(kept, key=lambda one: sign * values[one])[: window.top])


def _runs(kept: Sequence[Checkpoint], about: Mapping[Checkpoint, TrainingRecord]) -> list[list[Checkpoint]]:
    """Return the checkpoints of each run in the order of steps, else of epochs, else of paths."""
    runs: dict[Path, list[Checkpoint]] = {}
    for one in kept:
        runs.setdefault(folder_of_run(one).absolute(), []).append(one)
    return [_along(run, about) for run in runs.values()]


def folder_of_run(one: Checkpoint) -> Path:
    """Return the folder of a checkpoint; for a revision of a model of the Hub the model."""
    if one.origin.revision is not None:
        return Path(re.split("[@:]", str(one.path))[0])
    return one.path.parent


def in_order_of_steps(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints in the order of steps, else of epochs, else unchanged."""
    return _along(checkpoints, {one: record_of(one) for one in checkpoints})


def along_one_run(checkpoints: Sequence[Checkpoint], flag: str = "--decay") -> list[Checkpoint]:
    """Return the checkpoints of one run in the order of their steps.

    Raises UsageError, of `flag`, if they lie in several folders, if two are of one step, or if they are fewer than two.
    """
    about = {one: record_of(one) for one in checkpoints}
    runs = _runs(checkpoints, about)
    if len(runs) > 1:
        raise UsageError(
            f"{flag}: {runs[0][0].path} and {runs[1][0].path} are not of one run: they lie in different folders",
            hint="it runs along the checkpoints of one run: --ckpts 'run/checkpoint-*/'",
        )
    if len(checkpoints) < 2:
        raise UsageError(f"{flag}: one checkpoint ({checkpoints[0].path}) has no interval", hint="name several")
    _check_one_run(runs[0], about, flag)
    return runs[0]


def positions(run: Sequence[Checkpoint]) -> list[float]:
    """Return the positions of checkpoints along their run: steps, else epochs, else 0, 1, 2, ..."""
    about = [record_of(one) for one in run]
    for numbers in ([one.step for one in about], [one.epoch for one in about]):
        known = [float(number) for number in numbers if number is not None]
        if len(known) == len(run) and all(before < after for before, after in pairwise(known)):
            return known
    return [float(number) for number in range(len(run))]


def _along(run: Sequence[Checkpoint], about: Mapping[Checkpoint, TrainingRecord]) -> list[Checkpoint]:
    steps, epochs = [about[one].step for one in run], [about[one].epoch for one in run]
    if None in steps and None in epochs:
        return list(run)
    ordered = sorted(run, key=lambda one: natural_order(str(one.path)))
    if None in steps or None in epochs:
        return sorted(ordered, key=lambda one: _number(about[one].epoch if None in steps else about[one].step))
    by_step = sorted(ordered, key=lambda one: (_number(about[one].step), _number(about[one].epoch)))
    passed = [_number(about[one].epoch) for one in by_step]
    if passed == sorted(passed):
        return by_step
    return sorted(by_step, key=lambda one: _number(about[one].epoch))  # steps begin anew in each epoch


def _number(known: int | None) -> int:
    return known or 0


def _check_one_run(
    ordered: Sequence[Checkpoint], about: Mapping[Checkpoint, TrainingRecord], flag: str, last: int | None = None
) -> None:
    """Raises UsageError if two of the `last` checkpoints are of one step, or if only some say their step.

    They are then not of one run, or their place in it is not known.
    """
    steps, epochs = ([about[one].step for one in ordered], [about[one].epoch for one in ordered])
    if None in steps and None in epochs and {*steps, *epochs} != {None}:
        number = steps.index(None) if set(epochs) == {None} else epochs.index(None)
        raise UsageError(
            f"{flag}: {ordered[number].path} says no step, others of its folder do: its place in the run is not known",
            hint="leave it out of --ckpts",
        )
    for one, other in pairwise(ordered[-last - 1 :] if last is not None else ordered):
        place = about[one].epoch, about[one].step
        if place != (None, None) and place == (about[other].epoch, about[other].step):
            at = f"step {place[1]}" if place[1] is not None else f"epoch {place[0]}"
            raise UsageError(
                f"{flag}: {one.path} and {other.path} are not of one run: both are of {at}",
                hint="a run is the checkpoints of one folder: name those of one run, e.g. --ckpts 'run/checkpoint-*/'",
            )


def _step(one: Checkpoint, about: TrainingRecord, flag: str) -> int:
    step = about.step if about.step is not None else about.epoch
    if step is None:
        raise UsageError(
            f"{flag}: {one.path} has no step: neither its content, nor trainer_state.json, nor its name says one",
            hint="--last counts checkpoints in the order of their names",
        )
    return step


def _between_flag(window: Window) -> str:
    return "--between {} {}".format(*window.between) if window.between is not None else "--between"


def _known(about: TrainingRecord, by: str | None) -> str:
    """The step of a checkpoint and the metric to choose by, for a line about it."""
    metric = (by or "").lstrip("-+")
    known = [f"step {about.step}"] if about.step is not None else []
    known += [f"epoch {about.epoch}"] if about.step is None and about.epoch is not None else []
    known += [f"{metric} {about.metrics[metric]:g}"] if metric in about.metrics else []
    return f" ({', '.join(known)})" if known else ""


def _steps_there(about: Mapping[Checkpoint, TrainingRecord]) -> str:
    steps = [one.step for one in about.values() if one.step is not None]
    return f"their steps are {min(steps)} to {max(steps)}" if steps else "no step of them is known"
