"""The named parts of a saved object, and which of them hold tensors that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.formats.pickles.modules import is_module, state_of
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn, entries_of, find_in
from soupcli.checkpoints.formats.pickles.tensors import is_array, is_tensor
from soupcli.checkpoints.formats.training_state import is_counter, is_fitted_scaler, is_training_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CALLBACKS = "callbacks"  # Lightning's; most of them keep the best score as a tensor


class SavedFile:
    """The file that is looked into, and what counts as a tensor in it."""

    def __init__(self, path: Path, is_tensor: Callable[[Any], bool]) -> None:
        self.path = path
        self.is_tensor = is_tensor
        self._held: dict[int, bool] = {}

    def holds(self, value: Any) -> bool:
        """Whether a tensor lies anywhere in `value`, which outlives this object."""
        if id(value) not in self._held:
            self._held[id(value)] = next(find_in(value, self.is_tensor), None) is not None
        return self._held[id(value)]

    def has_names(self, value: Any) -> bool:
        """Whether tensors lie in `value` under names, and not only in lists."""
        parts = (view_of(value) or {}).values()
        return any(self.is_tensor(part) or (view_of(part) is not None and self.holds(part)) for part in parts)


def view_of(value: Any) -> Mapping[Any, Any] | None:
    """Return the named parts of a dict, of a whole module or of another object, or None if it has no names."""
    if is_module(value):
        return state_of(value)
    entries = entries_of(value)
    if entries is not None:
        return entries
    return value.attributes if isinstance(value, StandIn) and value.attributes else None


def stated_in(value: Any) -> Mapping[Any, Any] | None:
    """Return the entries and attributes of a dict or object, among which classes may be named, or None."""
    if isinstance(value, StandIn) and not is_tensor(value):
        return value.entries if value.entries is not None else value.attributes
    return entries_of(value)


def matters(file: SavedFile, name: str, value: Any) -> bool:
    """Whether an entry has tensors that are neither training state nor counters, or scales inputs or outputs."""
    if is_fitted_scaler(name, value):
        return True
    if file.is_tensor(value) or is_array(value) or any(map(is_array, (entries_of(value) or {}).values())):
        return not is_counter(name) and not is_training_state(name, value)
    if name != CALLBACKS:
        return file.holds(value) and not is_training_state(name, value)
    states = (view_of(value) or {}).values()
    return any(matters(file, str(part), inner) for state in states for part, inner in (view_of(state) or {}).items())
