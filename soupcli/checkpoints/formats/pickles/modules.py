"""The state dict of a whole module that was pickled (torch.save(model)), from the stand-ins of its modules.

A module keeps its tensors in `_parameters`, `_buffers` and `_modules`; its class is not needed to name them.
"""

from __future__ import annotations

from typing import Any

from soupcli.checkpoints.formats.pickles.machine import PickleError
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn, entries_of
from soupcli.checkpoints.formats.pickles.tensors import UNREADABLE, is_tensor

MOST_MODULES = 200_000
LONGEST_NAME = 4096
PLACES = ("_modules", "_parameters", "_buffers")


def is_module(value: Any) -> bool:
    """Whether `value` is the stand-in of a torch.nn.Module."""
    return isinstance(value, StandIn) and all(place in value.attributes for place in PLACES)


def state_of(module: StandIn) -> dict[str, Any]:
    """Returns name -> tensor as Module.state_dict() names them: parameters and persistent buffers.

    A module under two names gives its tensors twice, as state_dict() does. Raises PickleError if modules hold each
    other without end.
    """
    state: dict[str, Any] = {}
    waiting: list[tuple[str, StandIn]] = [("", module)]
    visited = 0
    while waiting:
        prefix, at = waiting.pop()
        visited += 1
        if visited > MOST_MODULES or len(prefix) > LONGEST_NAME:
            raise PickleError(f"its modules have more than {MOST_MODULES} parts, or hold each other without end")
        for name, tensor in _own_tensors(at).items():
            state[prefix + name] = tensor
        inner = entries_of(at.attributes.get("_modules")) or {}
        below = [(f"{prefix}{name}.", part) for name, part in inner.items() if isinstance(part, StandIn)]
        waiting.extend(reversed(below))
    return state


def _own_tensors(module: StandIn) -> dict[str, Any]:
    attributes = module.attributes
    skipped = attributes.get("_non_persistent_buffers_set") or ()
    own = {str(name): value for name, value in (entries_of(attributes.get("_parameters")) or {}).items()}
    buffers = entries_of(attributes.get("_buffers")) or {}
    own |= {str(name): value for name, value in buffers.items() if name not in skipped}
    own |= _packed(attributes)
    return {name: value for name, value in own.items() if is_tensor(value)}


def _packed(attributes: Any) -> dict[str, Any]:
    """Tensors without plain bytes that a quantised module keeps elsewhere: they are weights too."""
    found = {}
    for name, value in attributes.items():
        parts = value if isinstance(value, list | tuple) else (value,)
        packed = (part for part in parts if isinstance(part, StandIn) and part.full_name in UNREADABLE)
        found.update({str(name): part for part in packed})
    return found
