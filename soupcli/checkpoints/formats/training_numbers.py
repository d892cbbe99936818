"""Numbers that trainers record in files of torch.save: the progress of the training, and its metrics.

fairseq keeps one number under `extra_state.val_loss`, whatever it measures: `cfg` says which metric that is. Lightning
keeps, for each ModelCheckpoint, what it watches. ESPnet keeps nothing in `12epoch.pth`; `checkpoint.pth` beside has the
numbers of every epoch.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from soupcli.checkpoints.formats.pickles.stand_ins import Global, StandIn, entries_of
from soupcli.files.json_text import finite
from soupcli.metrics.direction import direction_of

PROGRESS = ("epoch", "global_step", "step", "iteration", "iter", "num_updates")
SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
REALS = {"f8": "d", "f4": "f", "f2": "e"}

ReadScalar = Callable[[Any], "float | None"]  # of a tensor with one element


def progress_of(view: Mapping[Any, Any]) -> dict[str, float]:
    """The epoch and the step at which a training checkpoint was saved, as far as it says so."""
    found = {name: number for name in PROGRESS if (number := finite(view.get(name))) is not None}
    iterator = _at(view, "extra_state", "train_iterator")
    history = view.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    of_fairseq = {"epoch": _at(iterator, "epoch"), "num_updates": _at(last, "num_updates")}
    return found | {name: number for name, value in of_fairseq.items() if (number := finite(value)) is not None}


def metrics_of(view: Mapping[Any, Any], read_scalar: ReadScalar) -> dict[str, float]:
    """Return the trainer's metrics of these weights, by its own names."""
    found = _own_numbers(view) | {"metric": view.get("metric")}  # timm's
    found |= dict.fromkeys(_metrics_of_fairseq(view), _at(view, "extra_state", "val_loss"))
    callbacks = entries_of(view.get("callbacks")) or {}
    for callback in callbacks.values():  # Lightning's
        watched, score = _at(callback, "monitor"), _at(callback, "current_score")
        if isinstance(watched, str):
            found |= {watched: score}
    numbers = {name: number_of(value, read_scalar) for name, value in found.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def _own_numbers(view: Mapping[Any, Any]) -> dict[str, float | None]:
    """Plain numbers beside the state dict, or in its `metrics`, under the names of metrics: a loop of the user's own.

    The best of a run so far may be that of other weights.
    """
    entries = {**(entries_of(view.get("metrics")) or {}), **view}
    named = {name: value for name, value in entries.items() if isinstance(name, str) and direction_of(name) is not None}
    numbers = {name: number_of(value, _no_tensor) for name, value in named.items() if not name.startswith("best")}
    return {name: number for name, number in numbers.items() if number is not None}


def _no_tensor(_: Any) -> None:
    """A tensor of one element may be a weight."""


def metrics_of_epochs(view: Mapping[Any, Any], read_scalar: ReadScalar) -> dict[int, dict[str, float]]:
    """The numbers of every epoch in ESPnet's `checkpoint.pth`, by its own names: `valid.acc`, `train.loss`."""
    epochs = entries_of(_at(view, "reporter", "stats")) or {}
    found: dict[int, dict[str, float]] = {}
    for epoch, parts in epochs.items():
        values = {
            f"{part}.{name}": number_of(value, read_scalar)
            for part, measured in (entries_of(parts) or {}).items()
            for name, value in (entries_of(measured) or {}).items()
        }
        if isinstance(epoch, int):
            found[epoch] = {name: number for name, number in values.items() if number is not None}
    return found


def number_of(value: Any, read_scalar: ReadScalar) -> float | None:
    """A finite number: plain, of numpy, or a tensor with one element; None for everything else."""
    plain = finite(value)
    if plain is not None or value is None or isinstance(value, str | dict | list | tuple):
        return plain
    return finite(_of_numpy(value)) if _name(value) in SCALARS else finite(read_scalar(value))


def _metrics_of_fairseq(view: Mapping[Any, Any]) -> tuple[str, ...]:
    """The names of the metric that fairseq chooses the best checkpoint by; its number is called `val_loss` always."""
    named = _at(view, "cfg", "checkpoint", "best_checkpoint_metric") or _at(view, "args", "best_checkpoint_metric")
    if named == "loss":
        return "val_loss", "loss"
    return (named,) if isinstance(named, str) else ("val_loss",)


def _of_numpy(value: StandIn) -> float | None:
    """The number of a pickled numpy scalar."""
    args = value.args if isinstance(value.args, tuple) else ()
    kind, data = args if len(args) == 2 else (None, None)
    if _name(data) == "_codecs.encode" and isinstance(data, StandIn):  # bytes, of pickle protocol 2
        text = data.args[0] if isinstance(data.args, tuple) and data.args else None
        data = text.encode("latin1") if isinstance(text, str) else None
    code = kind.args[0] if isinstance(kind, StandIn) and isinstance(kind.args, tuple) and kind.args else None
    form = REALS.get(code) if isinstance(code, str) else None
    if form is None or not isinstance(data, bytes) or len(data) != struct.calcsize(form):
        return None
    state = kind.state if isinstance(kind, StandIn) else None
    big = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"
    return float(struct.unpack(f"{'>' if big else '<'}{form}", data)[0])


def _name(value: Any) -> str:
    return value.full_name if isinstance(value, StandIn | Global) else ""


def _at(value: Any, *keys: str) -> Any:
    """Return the value under these nested keys, or None. Attributes of an object are keys too."""
    for key in keys:
        entries = entries_of(value)
        if entries is None and isinstance(value, StandIn):
            entries = dict(value.attributes)
        value = (entries or {}).get(key)
    return value
