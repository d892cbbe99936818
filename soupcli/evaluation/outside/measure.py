"""Sets whose examples are not seen here: code and commands of the user, and tasks of lm-evaluation-harness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.checkpoints.tensor_filter import Selected
from soupcli.evaluation.outside import command as command_task
from soupcli.evaluation.outside import user_function as python_task
from soupcli.files.unfinished import scratch_folder
from soupcli.mixing.write_soup import write_soup
from soupcli.recipe.sets import CommandSet, LmEvalSet, PythonSet

if TYPE_CHECKING:
    from soupcli.evaluation.keys import Identity
    from soupcli.evaluation.runner import Resident
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture

UnseenSet = CommandSet | PythonSet | LmEvalSet


def measure(spec: UnseenSet, name: str, weights: Mixture, resident: Resident, identity: Identity) -> Score:
    """The score of `weights` on the set `name`."""
    metric = identity.metric_of(name)
    if isinstance(spec, CommandSet):
        return _run_command(spec, weights, metric, resident)
    resident.live.load(weights)
    module = resident.live.network.module
    try:
        if isinstance(spec, PythonSet):
            return python_task.score(spec, module, resident.device, metric=metric)
        size = resident.recipe.batch_size
        return identity.harness(name, spec).score(module, resident.network.tokenizer, batch_size=size)
    finally:
        resident.live.forget()


def _run_command(spec: CommandSet, weights: Mixture, metric: str, resident: Resident) -> Score:
    """An ingredient is evaluated where it lies; a mixture is written for the command and removed after it."""
    command_task.split(spec.command)
    first = weights.members[0].path
    as_it_lies = len(weights.members) == 1 and not isinstance(weights.members[0], Selected)
    if as_it_lies and weights.dtype is None and resident.recipe.batch_norm == "average":
        return command_task.score(spec, first, metric=metric)
    with scratch_folder() as folder:
        written, _ = write_soup(
            weights,
            folder,
            metadata={"format": "pt"},
            max_shard_size=resident.recipe.max_shard_size,
            overrides=resident.statistics(weights) if resident.recipe.batch_norm != "average" else {},
        )
        for file in weights.kept.side_files:
            (folder / file.name).write_bytes(file.read_bytes())
        alone = not first.is_dir() and len(written.files) == 1
        return command_task.score(spec, folder / written.files[0] if alone else folder, metric=metric)
