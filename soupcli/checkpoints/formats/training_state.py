"""The training state in checkpoints: optimizers, schedulers, scalers, random states, counters."""

from __future__ import annotations

import re
from typing import Any

from soupcli.checkpoints.formats.pickles.modules import is_module
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn, entries_of
from soupcli.checkpoints.formats.pickles.tensors import PickledTensor, is_tensor, tensor_of

OPTIMIZER = frozenset({"state", "param_groups"})
NAMES = re.compile(
    r"(.*_)?(opt|optim|optimi[sz]ers?|(lr_)?scheduler|(lr_)?schedulers|sched|(grad_|loss_)?scalers?|sampler|averaging)"
    r"(_(state|states|state_dict|state_dicts|history))?"
    r"|(.*_)?(rng|random)_?(states?)?|loops|trainer_state|message_hub",
    re.IGNORECASE,
)
SCALER = re.compile(r"(.*_)?scalers?", re.IGNORECASE)  # of gradients, or of inputs: scikit-learn's, or numbers by name
FITTED = re.compile(r"(data_)?(mean|std|var|min|max|center|lambda|quantile)s?_?|running_(mean|var)", re.IGNORECASE)
COUNTERS = re.compile(r".*(epoch|step|iter|best|loss|acc|metric|score|update|average).*", re.IGNORECASE)
# Shapes of what torch.Generator.get_state returns, on a CPU and on a GPU.
OF_CPU, OF_GPU = (5056,), (16,)
DEEPEST = 3
HOLDERS = (dict, list, tuple, StandIn)


Known = dict[tuple[int, int], bool]  # by identity and depth: a file may hold one object in many places


def is_training_state(name: str, value: Any) -> bool:
    """Whether a part belongs to the training, by its content or else by its name.

    So does a dict with an optimizer, if it holds nothing else but training state and settings. Settings alone do not:
    a loader may look for them. Nor does a scaler that was fitted to inputs or outputs.
    """
    if is_fitted_scaler(name, value):
        return False
    return NAMES.fullmatch(name) is not None or _is_random_state(value) or _is_of_training(value, 0, {}, {})


def _is_random_state(value: Any) -> bool:
    """Whether a tensor, or each of a list, is the state of a generator of random numbers."""
    if isinstance(value, list):
        return bool(value) and all(_shape_of_bytes(part) in (OF_CPU, OF_GPU) for part in value)
    return _shape_of_bytes(value) == OF_CPU


def _shape_of_bytes(value: Any) -> tuple[int, ...] | None:
    """Return the shape of a tensor of bytes; None for everything else."""
    tensor = tensor_of(value) if is_tensor(value) else None
    return tensor.shape if isinstance(tensor, PickledTensor) and tensor.dtype == "uint8" else None


def is_fitted_scaler(name: str, value: Any) -> bool:
    """Whether a part scales inputs or outputs, not gradients."""
    return SCALER.fullmatch(name) is not None and _is_fitted(value, 0)


def _is_fitted(value: Any, depth: int) -> bool:
    """Whether an object, or one of several by name, has statistics of what it was fitted to."""
    entries = entries_of(value)
    if entries is None and isinstance(value, StandIn) and not is_module(value):
        entries = value.attributes
    inner = (entries or {}).values() if depth == 0 else ()
    return any(FITTED.fullmatch(str(name)) for name in entries or ()) or any(_is_fitted(part, 1) for part in inner)


def _is_of_training(value: Any, depth: int, known: Known, optimizers: Known) -> bool:
    at = id(value), depth
    if at not in known:
        entries = {str(key): part for key, part in (entries_of(value) or {}).items()}
        parts = {key: part for key, part in entries.items() if isinstance(part, HOLDERS) and part}
        known[at] = _is_optimizer(value, 0, optimizers) or (
            depth < DEEPEST
            and any(_is_optimizer(part, 0, optimizers) for part in parts.values())
            and all(
                NAMES.fullmatch(key) is not None or _is_of_training(part, depth + 1, known, optimizers)
                for key, part in parts.items()
            )
        )
    return known[at]


def is_counter(name: str) -> bool:
    """Whether a single number under this name counts or measures something."""
    return COUNTERS.fullmatch(name) is not None


def is_optimizer(value: Any) -> bool:
    """Whether `value` is the state dict of an optimizer, an optimizer itself, or nothing but such."""
    return _is_optimizer(value, 0, {})


def _is_optimizer(value: Any, depth: int, known: Known) -> bool:
    at = id(value), depth
    if at not in known:
        entries = entries_of(value)
        if entries is None and isinstance(value, StandIn) and not is_module(value):
            entries = value.attributes
        held = value if isinstance(value, list | tuple) else list(entries.values()) if entries else []
        parts = [part for part in held if isinstance(part, HOLDERS) and part]
        known[at] = (entries is not None and entries.keys() >= OPTIMIZER) or (
            bool(parts) and depth < DEEPEST and all(_is_optimizer(part, depth + 1, known) for part in parts)
        )
    return known[at]
