"""Sets whose examples are not seen here: code and commands of the user, and tasks of lm-evaluation-harness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.checkpoints.tensor_filter import Selected
from soupcli.evaluation.outside import command as command_task
from soupcli.evaluation.outside import user_function as python_task
from soupcli.files.unfinished import scratch_folder
from soupcli.mixing.fill_folder import copy_side_files
from soupcli.mixing.write_soup import write_soup
from soupcli.recipe.sets import CommandSet, LmEvalSet, PythonSet

if TYPE_CHECKING:
    from soupcli.evaluation.outside.lm_eval import LoadedTasks
    from soupcli.evaluation.runner import NetworkRunner
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture

UnseenSet = CommandSet | PythonSet | LmEvalSet


def measure(spec: UnseenSet, weights: Mixture, metric: str, runner: NetworkRunner, tasks: LoadedTasks) -> Score:
    """The score of `weights` on a set; `metric` selects there."""
    if isinstance(spec, CommandSet):
        return _run_command(spec, weights, metric, runner)
    runner.live.load(weights)
    module = runner.live.network.module
    try:
        if isinstance(spec, PythonSet):
            return python_task.score(spec, module, runner.device, metric=metric)
        size = runner.recipe.batch_size
        return tasks.of(spec).score(module, runner.network.tokenizer, batch_size=size)
    finally:
        runner.live.forget()


def _run_command(spec: CommandSet, weights: Mixture, metric: str, runner: NetworkRunner) -> Score:
    """An ingredient is evaluated where it lies; a mixture is written for the command and removed after it."""
    command_task.split(spec.command)
    first = weights.members[0].path
    as_it_lies = len(weights.members) == 1 and not isinstance(weights.members[0], Selected)
    if as_it_lies and weights.dtype is None and runner.recipe.batch_norm == "average":
        return command_task.score(spec, first, metric=metric)
    with scratch_folder() as folder:
        written, _ = write_soup(
            weights,
            folder,
            metadata={"format": "pt"},
            max_shard_size=runner.recipe.max_shard_size,
            overrides=runner.statistics(weights) if runner.recipe.batch_norm != "average" else {},
        )
        copy_side_files(weights, folder)
        alone = not first.is_dir() and len(written.files) == 1
        return command_task.score(spec, folder / written.main if alone else folder, metric=metric)
