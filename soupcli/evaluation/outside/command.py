"""`theirs: {command: "python eval.py --weights {checkpoint}", metric: accuracy}`: any program that prints JSON last."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.errors import ValidationError
from soupcli.evaluation.outside.user_function import score_of_result

if TYPE_CHECKING:
    from soupcli.evaluation.score import Score
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
