"""Measures sets that show no examples: the user's code and commands, and tasks of lm-evaluation-harness."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from soupcli.checkpoints.adapters.base_as_adapter import BaseAsAdapter
from soupcli.datasets.load import kind_of
from soupcli.environment import cache_folder
from soupcli.errors import ValidationError
from soupcli.evaluation.outside import command as command_task
from soupcli.evaluation.outside.command import Candidate, Processes
from soupcli.evaluation.outside.program_files import split
from soupcli.files.cache import CANDIDATES, NAME_OF_CANDIDATE
from soupcli.files.kept_file import make_folder
from soupcli.files.unfinished import remove, scratch_folder
from soupcli.late import torch
from soupcli.mixing.merged_adapters import as_written
from soupcli.networks.configuration import configuration_files
from soupcli.recipe.sets import CommandSet
from soupcli.user_code import notes
from soupcli.user_code.programs import shown_program

if TYPE_CHECKING:
    from soupcli.evaluation.context import EvaluationContext
    from soupcli.evaluation.outside.lm_eval import LoadedTasks
    from soupcli.evaluation.outside.user_function import Stop
    from soupcli.evaluation.runner import NetworkRunner
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.networks.device import Device

HEAD_START = 0.25  # seconds
Run = tuple[str, str]  # a command, and the key of the weights that it is run on


class OutsideSets:
    """Measures mixtures on such sets. The output of a command serves all sets with that command.

    `put` is called with every score of a command as soon as it is known.
    """

    def __init__(
        self,
        context: EvaluationContext,
        runner: NetworkRunner,
        tasks: LoadedTasks,
        put: Callable[[str, Mixture, Score], None],
    ) -> None:
        self._context, self._runner, self._tasks, self._put = context, runner, tasks, put
        self._processes = Processes()
        self._ahead: Ahead[Run, Any] = Ahead(context.jobs, self._in_job)
        self._results: dict[Run, Any] = {}
        self._weights: dict[Run, Mixture] = {}
        self._tried: set[str] = set()
        self._candidates: set[Path] = set()  # those that stay
        self._lock = threading.Lock()

    def score(self, name: str, weights: Mixture, key: str, stop: Stop | None = None) -> Score:
        """Return the score of `weights`, whose identity is `key`, on the set `name`. With `stop` it may end early."""
        spec, metric = self._context.sets[name], self._context.metric_of(name)
        if isinstance(spec, CommandSet):
            return self._score(spec, name, self._printed(spec, weights, key))
        measure = kind_of(spec).measure
        assert measure is not None, f"{type(spec).__name__} shows examples"
        found: Score = measure(spec, weights, metric, self._runner, self._tasks, stop)
        return found._replace(unseen=self._context.manifest.unseen())

    def expect(self, name: str, coming: Sequence[tuple[Mixture, str]]) -> None:
        """Begin with evaluations on the set `name` that will be needed, if there are jobs for them.

        The first run of a command has a head start: a mistake that shows at once is made, and told, once.
        """
        spec = self._context.sets[name]
        if self._context.jobs > 1 and isinstance(spec, CommandSet):
            runs = {(spec.command, key): weights for weights, key in coming}
            self._weights |= runs
            wanted = [run for run in runs if run not in self._results]
            if wanted and spec.command not in self._tried:
                self._ahead.expect(wanted[:1])
                if self._ahead.fails(wanted[0], within=HEAD_START):
                    return
            self._ahead.expect(wanted)

    def close(self) -> None:
        """End commands whose results are no longer needed."""
        self._ahead.close()
        self._processes.end()

    def _printed(self, spec: CommandSet, weights: Mixture, key: str) -> Any:
        run = spec.command, key
        if run not in self._results:
            self._weights[run] = weights
            try:
                self._results[run] = self._ahead.result(run) if self._ahead.has(run) else self._in_job(run, 0)
            except BaseException:
                self.close()
                raise
        return self._results[run]

    def _in_job(self, run: Run, job: int) -> Any:
        """Return the command's output for the weights. Its scores on all of its sets are kept at once."""
        weights = self._weights[run]
        own = {n: s for n, s in self._context.sets.items() if isinstance(s, CommandSet) and s.command == run[0]}
        spec = next(iter(own.values()))
        with self._candidate(spec, weights, job) as candidate:
            found = command_task.result(spec, candidate, self._processes)
        with self._lock:
            for name, one in own.items():
                if len(own) == 1 or (isinstance(found, dict) and isinstance(found.get(name), dict)):
                    self._put(name, weights, self._score(one, name, found))
        return found

    def _score(self, spec: CommandSet, name: str, printed: Any) -> Score:
        """Return the score on the set `name` that the command printed."""
        found = command_task.score(spec, name, printed, metric=self._context.metric_of(name))
        own = {shown_program(split(spec.command))} if spec.command in self._processes.unattended else set()
        return found._replace(unseen=tuple(sorted(own.union(self._context.manifest.unseen()))))

    @contextmanager
    def _candidate(self, spec: CommandSet, weights: Mixture, job: int) -> Iterator[Candidate]:
        """Yield the files for a command: an ingredient's own, or a written mixture that is removed afterwards.

        Of a run that makes a soup the first one is written in any case, so that a command that cannot take a mixture
        fails at once.
        """
        split(spec.command)
        device, environment = _device(self._context.device, job)
        first = weights.members[0]
        is_first = self._context.makes_soups and spec.command not in self._tried
        self._tried.add(spec.command)
        if self._lies_there(weights) and not is_first:
            notes.pass_over([*(file.path for file in first.files), *configuration_files(first.folder)])
            weights_file = first.files[0].path if len(first.files) == 1 else first.path
            yield Candidate(first.path, weights_file, first.folder, device, environment)
            return
        with scratch_folder() as folder:
            notes.pass_over([folder])
            place, file = self._written(weights, folder)
            try:
                yield Candidate(place, file, folder, device, environment)
            except ValidationError as error:
                with self._lock:
                    _keep_for_reproduction(error, folder, self._candidates)
                raise

    def _lies_there(self, weights: Mixture) -> bool:
        """Whether a mixture is an ingredient that would be written as it is."""
        recipe, first = self._context.recipe, weights.members[0]
        alone = len(weights.members) == 1 and first.own is first and weights.dtype is None
        changed = isinstance(first, BaseAsAdapter) or (recipe.merge_adapters and first.is_adapter)
        return alone and not changed and recipe.batch_norm == "average"

    def _written(self, weights: Mixture, folder: Path) -> tuple[Path, Path]:
        """Write a mixture as a soup is written. Returns the values of {checkpoint} and {weights}."""
        from soupcli.mixing.fill_folder import copy_side_files
        from soupcli.mixing.write_soup import WritingOptions, write_soup

        recipe = self._context.recipe
        weights = as_written(weights, merge_adapters=recipe.merge_adapters)
        written, _ = write_soup(
            weights,
            folder,
            WritingOptions(
                max_shard_size=recipe.max_shard_size,
                overrides=self._runner.statistics(weights) if recipe.batch_norm != "average" else {},
                format=recipe.format,
                keep_state=recipe.keep_state,
            ),
        )
        copy_side_files(weights, folder)
        weights_file = folder / written.main
        is_folder = weights.members[0].path.is_dir() or len(written.files) > 1
        return (folder if is_folder else weights_file), weights_file


def _device(device: Device, job: int) -> tuple[str, dict[str, str]]:
    """Return the value of {device}, and the variables that show a command only that device."""
    if device.type != "cuda":
        return str(device), {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    number = (device.index or 0) + job
    return "cuda:0", {"CUDA_VISIBLE_DEVICES": names[number % len(names)]}


def _keep_for_reproduction(error: ValidationError, folder: Path, kept: set[Path]) -> None:
    """Move the folder of a candidate whose command failed to the cache, and name the new place in the error.

    `kept` are those of this run; those of earlier runs are removed. Nothing is kept if the cache cannot be written, or
    leads elsewhere.
    """
    place = cache_folder() / CANDIDATES / f"{os.getpid()}-{len(kept)}"
    kept.add(place)
    try:
        make_folder(place.parent)
        if place.parent.is_symlink():
            return
        for other in place.parent.iterdir():
            if NAME_OF_CANDIDATE.fullmatch(other.name) and other not in kept - {place}:
                remove(other)
        shutil.move(folder, place)
    except OSError:
        remove(place)
        return
    error.args = (str(error).replace(str(folder), str(place)),)
    how = error.hint or "run it by hand to see why"
    error.hint = f"{how}; the candidate stays in {place} until one of another run fails"


Item = TypeVar("Item", bound=Hashable)
Made = TypeVar("Made")


class Ahead(Generic[Item, Made]):
    """Runs `work` on items, `jobs` at once, before their results are needed.

    `work` gets an item and the number of its job, from 0.
    """

    def __init__(self, jobs: int, work: Callable[[Item, int], Made]) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(jobs)
        self._free: SimpleQueue[int] = SimpleQueue()
        for job in range(jobs):
            self._free.put(job)
        self._futures: dict[Item, Future[Made]] = {}

    def expect(self, items: Sequence[Item]) -> None:
        """Begin with these items, in order. Others that have not begun are dropped."""
        for item, future in list(self._futures.items()):
            if item not in items and future.cancel():
                del self._futures[item]
        for item in items:
            if item not in self._futures:
                self._futures[item] = self._pool.submit(self._in_a_job, item)

    def has(self, item: Item) -> bool:
        """Whether the item was expected and its result was not taken yet."""
        return item in self._futures

    def fails(self, item: Item, *, within: float) -> bool:
        """Whether the work on an expected item fails within so many seconds."""
        future = self._futures[item]
        return bool(wait([future], within).done) and future.exception() is not None

    def result(self, item: Item) -> Made:
        """Wait for the result of an expected item. Raises what the work raised."""
        return self._futures.pop(item).result()

    def close(self) -> None:
        """Drop all items that have not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _in_a_job(self, item: Item) -> Made:
        job = self._free.get()
        try:
            return self._work(item, job)
        finally:
            self._free.put(job)
