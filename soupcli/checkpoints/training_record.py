"""The trainer's record of a checkpoint: its step, its epoch and the metrics that it measured.

The first of these sources that has a value counts: the checkpoint's content (`Origin`), `trainer_state.json` of
transformers, a YAML file of the same name beside it (wenet), `checkpoint.pth` beside it (ESPnet), and the names of its
file and folder, e.g. `epoch=3-val_loss=0.12.ckpt` (Lightning, NeMo), `checkpoint-500`, `step_2000.pt`, `12epoch.pth`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from soupcli.checkpoints.formats.folders.trainer_state import trainer_progress, unread
from soupcli.checkpoints.formats.torch_save import epochs_of
from soupcli.errors import UsageError
from soupcli.files.json_text import finite
from soupcli.files.reading import FileVersion
from soupcli.files.small_file import read_small
from soupcli.metrics.direction import direction_of
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

STEPS = ("global_step", "step", "steps", "iteration", "iterations", "iter", "update", "updates", "num_updates")
EPOCHS = ("epoch", "epochs", "ep")
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_PAIR = re.compile(rf"(?P<name>[A-Za-z][A-Za-z0-9_./]*?)=(?P<value>{_NUMBER})(?![\w.]*=)", re.IGNORECASE)
_COUNT = re.compile(r"(?P<name>[A-Za-z]+)[-_ ]?(?P<value>\d+)(?=\D|$)")
_OF_EPOCH = re.compile(r"(?P<epoch>\d+)epoch\.pth")  # ESPnet
_OF_UPDATES = re.compile(r"checkpoint_(?P<epoch>\d+)_(?P<num_updates>\d+)\.pt")  # fairseq, and at the end of an epoch:
# Its best ones have two decimals, or since 0.12 three and a random number, which keeps names apart.
_OF_BEST = re.compile(r"checkpoint\.best_(?P<metric>.+)_(?P<value>-?\d+\.(?:\d{3}(?=\d)|\d+(?=\.pt)))\d*\.pt")
_UNNAMED = frozenset({"checkpoint", "ckpt", "model", "avg", "snapshot", "weights", "iter", "state"})
MAX_YAML = 1_000_000  # bytes


class TrainingRecord(NamedTuple):
    """Step, epoch and metrics of a checkpoint as its trainer recorded them; None and empty if it did not."""

    step: int | None
    epoch: int | None
    metrics: Mapping[str, float]


class Order(NamedTuple):
    """A metric to choose by, and whether higher is better."""

    metric: str
    higher_is_better: bool


def record_of(checkpoint: Checkpoint) -> TrainingRecord:
    """Return the trainer's record of `checkpoint`."""
    found: dict[str, float] = {}
    step: int | None = None
    epoch: int | None = None
    progress = trainer_progress(checkpoint.path) if checkpoint.path.is_dir() else {}
    origin, named = checkpoint.origin, _in_names(checkpoint.path)
    for numbers in (named, _beside(checkpoint, named), progress, origin.progress, origin.metrics):
        own = {name: number for name, value in numbers.items() if (number := finite(value)) is not None}
        own_step, own_epoch = _first(own, STEPS), _first(own, EPOCHS)  # a later source goes over an earlier one
        step, epoch = own_step if own_step is not None else step, own_epoch if own_epoch is not None else epoch
        found |= own
    return TrainingRecord(step, epoch, {name: value for name, value in found.items() if name not in (*STEPS, *EPOCHS)})


def order_by(word: str) -> Order:
    """Return the metric and direction of `--by WORD`: `-name` if lower is better, `+name` if higher is better.

    Raises UsageError if the word has no sign and the name does not tell the direction.
    """
    name = word.removeprefix("-").removeprefix("+")
    if word.startswith(("-", "+")):
        return Order(name, word.startswith("+"))
    higher = direction_of(name)
    if higher is None:
        raise UsageError(
            f"--by {word}: nothing says whether more or less of it is better",
            hint=f"--by=-{word} if lower is better, --by=+{word} if higher is",
        )
    return Order(name, higher)


def value_of(metric: str, about: TrainingRecord, path: Path) -> float:
    """Return the recorded value of a metric. Raises UsageError, with the recorded names, if there is none."""
    if metric not in about.metrics:
        known, why = sorted(about.metrics), unread(path)
        raise UsageError(
            f"--by {metric}: the trainer of {path} recorded no such metric{suggestion(metric, known)}",
            hint=f"it recorded {', '.join(known)}"
            if known
            else f"{why or 'nothing is recorded there'}: soup rank measures",
        )
    return about.metrics[metric]


def _in_names(path: Path) -> dict[str, float]:
    """Return named numbers in the last two parts of the path. The file's take precedence over its folder's."""
    found: dict[str, float] = {}
    for part in (path.parent.name, path.name):
        text = re.sub(r"\.(ckpt|pth?|bin|safetensors|tar|nemo)$", "", part)
        pairs = {match["name"].strip("-_./"): float(match["value"]) for match in _PAIR.finditer(text)}
        counts = {} if pairs else {match["name"].lower(): float(match["value"]) for match in _COUNT.finditer(text)}
        for pattern in (_OF_EPOCH, _OF_UPDATES, _OF_BEST):
            if (match := pattern.fullmatch(part)) is not None:
                counts = {}
                pairs |= _said_by(match)
        named = {name: value for name, value in counts.items() if name in (*STEPS, *EPOCHS)}
        plain = [value for name, value in counts.items() if name in _UNNAMED]
        own = {**pairs, **(named or dict.fromkeys(["step"] if plain else [], max(plain, default=0.0)))}
        if not own.keys().isdisjoint(STEPS):  # the folder's may have another name
            found = {name: value for name, value in found.items() if name not in STEPS}
        found |= own
    return found


def _said_by(match: re.Match[str]) -> dict[str, float]:
    """Return the numbers in a name of one of the libraries' forms."""
    said = match.groupdict()
    if "metric" in said:
        return {said["metric"]: float(said["value"])}
    return {name: float(value) for name, value in said.items()}


def _beside(checkpoint: Checkpoint, named: Mapping[str, float]) -> Mapping[str, Any]:
    """Numbers in files beside the checkpoint: wenet's YAML file, else ESPnet's `checkpoint.pth` of all epochs."""
    if _OF_EPOCH.fullmatch(checkpoint.path.name) and "epoch" in named:
        return _of_espnet(checkpoint.path.parent / "checkpoint.pth", int(named["epoch"]))
    return _of_wenet(checkpoint)


def _of_espnet(file: Path, epoch: int) -> Mapping[str, Any]:
    """Return what ESPnet's reporter recorded of an epoch."""
    try:
        return epochs_of(FileVersion.of(file)).get(epoch, {}) if file.is_file() else {}
    except OSError:
        return {}


def _of_wenet(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Numbers of the YAML file that wenet writes beside each checkpoint: `epoch_12.yaml` beside `epoch_12.pt`."""
    file = checkpoint.path.with_suffix(".yaml")
    try:
        if not checkpoint.path.is_file():
            return {}
        document = yaml.safe_load(read_small(file, most=MAX_YAML))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    entries = document if isinstance(document, dict) else {}
    losses = entries.get("loss_dict")  # wenet 3 keeps its losses one level deeper
    deeper = losses if isinstance(losses, dict) else {}
    return {name: value for name, value in (*entries.items(), *deeper.items()) if isinstance(name, str)}


def _first(numbers: Mapping[str, float], names: tuple[str, ...]) -> int | None:
    return next((int(numbers[name]) for name in names if name in numbers), None)


NAMES = ("summary.csv", "metrics.csv", "results.csv", "log.csv", "logs.csv", "history.csv", "training_log.csv")
LARGEST = 20_000_000  # bytes


def highest_in_table(folder: Path) -> dict[str, float]:
    """Return the greatest finite number of each column of the trainer's table, {"val_acc": 0.975}, or {} without one.

    The table is timm's summary.csv, Lightning's metrics.csv or a log.csv beside the checkpoints.
    """
    for name in NAMES:
        try:
            lines = read_small(folder / name, most=LARGEST).decode("utf-8-sig", "replace").splitlines()
            rows = list(csv.DictReader(lines))
        except (OSError, csv.Error):
            continue
        found: dict[str, float] = {}
        for row in rows:
            for column, text in row.items():
                number = _number(text)
                if number is not None and column:
                    found[column.strip()] = max(number, found.get(column.strip(), number))
        return found
    return {}


def _number(text: object) -> float | None:
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
