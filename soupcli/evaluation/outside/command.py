"""`theirs: {command: "python eval.py --weights {checkpoint}", metric: accuracy}`: any program that prints JSON last."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.tensor_filter import Selected
from soupcli.datasets.kind import Kind
from soupcli.errors import ValidationError
from soupcli.evaluation.outside.user_function import score_of_result
from soupcli.files.unfinished import scratch_folder
from soupcli.mixing.fill_folder import copy_side_files
from soupcli.mixing.write_soup import WritingOptions, write_soup

if TYPE_CHECKING:
    from soupcli.evaluation.runner import NetworkRunner
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.recipe.sets import CommandSet


def score(spec: CommandSet, checkpoint: Path, *, metric: str) -> Score:
    """Runs the command on the weights at `checkpoint`; the last line that it prints is a JSON object of metrics.

    No shell is involved: the command is split into words as a shell would, then `{checkpoint}` is replaced in each.
    Its stderr passes through, its stdin is empty. Raises ValidationError where it fails or prints something else.
    """
    place = f"./{checkpoint}" if str(checkpoint).startswith("-") else str(checkpoint)  # a path is never an option
    words = [word.replace("{checkpoint}", place) for word in split(spec.command)]
    try:
        ran = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as cause:
        raise ValidationError(f"command {words[0]!r}: {cause.strerror}", hint="is it on the PATH?") from cause
    if ran.returncode:
        ended = f"exited with {ran.returncode}" if ran.returncode > 0 else f"was ended by signal {-ran.returncode}"
        raise ValidationError(f"command {ended}: {shlex.join(words)}", hint="run it by hand to see why")
    last = next((line for line in reversed(ran.stdout.splitlines()) if line.strip()), "")
    try:
        result = json.loads(last)
    except (ValueError, RecursionError) as cause:
        raise ValidationError(
            f"command {words[0]!r}: its last line is {last[:80]!r}, not a JSON object of metrics",
            hint=f'print {{"{metric}": 0.5}} as the last line',
        ) from cause
    return score_of_result(result, metric, source=f"command {words[0]!r}", higher_is_better=spec.higher_is_better)


def split(command: str) -> list[str]:
    """The words of a command. Raises ValidationError for an open quotation and where no word holds {checkpoint}."""
    try:
        words = shlex.split(command)
    except ValueError as cause:
        raise ValidationError(f"command {command!r}: {cause}") from cause
    if not any("{checkpoint}" in word for word in words):
        raise ValidationError(
            f"command {command!r}: has no {{checkpoint}}, so every ingredient would score the same",
            hint="write {checkpoint} where the path of the weights goes",
        )
    return words


def measure(spec: CommandSet, weights: Mixture, metric: str, runner: NetworkRunner, _: object) -> Score:
    """What the command prints. An ingredient is evaluated in its place; a mixture is written and removed afterwards."""
    split(spec.command)
    first = weights.members[0].path
    as_it_lies = len(weights.members) == 1 and not isinstance(weights.members[0], Selected)
    if as_it_lies and weights.dtype is None and runner.recipe.batch_norm == "average":
        return score(spec, first, metric=metric)
    with scratch_folder() as folder:
        written, _ = write_soup(
            weights,
            folder,
            WritingOptions(
                max_shard_size=runner.recipe.max_shard_size,
                overrides=runner.statistics(weights) if runner.recipe.batch_norm != "average" else {},
                format=runner.recipe.format,
                keep_state=runner.recipe.keep_state,
            ),
        )
        copy_side_files(weights, folder)
        alone = not first.is_dir() and len(written.files) == 1
        return score(spec, folder / written.main if alone else folder, metric=metric)


KIND: Kind[CommandSet] = Kind(measure=measure)
