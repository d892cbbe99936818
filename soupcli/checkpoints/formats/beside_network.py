"""Lists what lies beside the network in a saved object, at every level that holds it.

for part in parts_beside(content, "state.model", is_tensor):
    part.name, part.is_training                        # "state.optimizers", True; "state.run_name", False; "rng", True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.formats.network_part import MOST_LEVELS, trained_beside
from soupcli.checkpoints.formats.part_words import is_every
from soupcli.checkpoints.formats.pickles.modules import is_module
from soupcli.checkpoints.formats.pickles.stand_ins import entries_of
from soupcli.checkpoints.formats.saved_parts import view_of
from soupcli.checkpoints.formats.training_state import is_training_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Part(NamedTuple):
    """A part beside the network. Its name has dots: the entries that lead to it."""

    name: str
    value: Any
    is_training: bool  # whether it holds the state of a training


def parts_beside(content: Any, key: str | None, is_tensor: Callable[[Any], bool]) -> Iterator[Part]:
    """Yield the parts beside the network, which lies at `key`, and beside each part that holds it.

    Parts of the network's own dict that are no tensors count too. Trained weights beside averaged ones in `state_dict`
    are training state: a training goes on with them.
    """
    at, above = content, ""
    while not is_module(at):
        view = view_of(at) or {}
        on = next((name for name in view if leads_to(f"{above}{name}", key)), None)
        trained = trained_beside(view)
        for name, value in view.items():
            is_training = name == trained or is_training_state(str(name), value)
            if on is None and is_every(key) and not is_training and view_of(value) is not None:
                yield from _training_inside(f"{above}{name}", value, set())
            elif name != on and not (on is None and is_tensor(value)):
                yield Part(f"{above}{name}", value, is_training)
        if on is None:
            return
        at, above = view[on], f"{above}{on}."


def _training_inside(above: str, part: Any, seen: set[int]) -> Iterator[Part]:
    """Yield the training state in one of several parts that are mixed. An object in many places is `seen` once."""
    if is_module(part) or id(part) in seen:
        return
    seen.add(id(part))
    for name, value in (entries_of(part) or {}).items():
        if is_training_state(str(name), value):
            yield Part(f"{above}.{name}", value, is_training=True)
        elif above.count(".") < MOST_LEVELS:
            yield from _training_inside(f"{above}.{name}", value, seen)


def leads_to(name: str, key: str | None) -> bool:
    """Whether the part `name` is the one at `key`, or holds it."""
    return key is not None and f"{key}.".startswith(f"{name}.")
