"""The training state in checkpoints: optimizers, schedulers, scalers, random states, counters."""

from __future__ import annotations

import re
from typing import Any

from soupcli.checkpoints.formats.pickles.modules import is_module
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn, entries_of

OPTIMIZER = frozenset({"state", "param_groups"})
NAMES = re.compile(
    r"(.*_)?(opt|optim|optimi[sz]ers?|(lr_)?scheduler|(lr_)?schedulers|sched|(grad_|loss_)?scalers?|sampler|averaging)"
    r"(_(state|states|state_dict|state_dicts|history))?"
    r"|(.*_)?(rng|random)_?(states?)?|loops|trainer_state|message_hub",
    re.IGNORECASE,
)
COUNTERS = re.compile(r".*(epoch|step|iter|best|loss|acc|metric|score|update|average).*", re.IGNORECASE)
DEEPEST = 3
HOLDERS = (dict, list, tuple, StandIn)


def is_training_state(name: str, value: Any, depth: int = 0) -> bool:
    """Whether a part belongs to the training, by its content or else by its name.

    So does a dict with an optimizer, if it holds nothing else but training state and settings. Settings alone do not:
    a loader may look for them.
    """
    if is_optimizer(value) or NAMES.fullmatch(name) is not None:
        return True
    parts = {str(key): part for key, part in (entries_of(value) or {}).items() if isinstance(part, HOLDERS) and part}
    return (
        depth < DEEPEST
        and any(map(is_optimizer, parts.values()))
        and all(is_training_state(key, part, depth + 1) for key, part in parts.items())
    )


def is_counter(name: str) -> bool:
    """Whether a single number under this name counts or measures something."""
    return COUNTERS.fullmatch(name) is not None


def is_optimizer(value: Any, depth: int = 0) -> bool:
    """Whether `value` is the state dict of an optimizer, an optimizer itself, or nothing but such."""
    entries = entries_of(value)
    if entries is None and isinstance(value, StandIn) and not is_module(value):
        entries = value.attributes
    if entries is not None and entries.keys() >= OPTIMIZER:
        return True
    held = value if isinstance(value, list | tuple) else list(entries.values()) if entries else []
    parts = {id(part): part for part in held if isinstance(part, HOLDERS) and part}
    return bool(parts) and depth < DEEPEST and all(is_optimizer(part, depth + 1) for part in parts.values())
