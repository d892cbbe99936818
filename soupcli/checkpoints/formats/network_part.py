"""Chooses the part of a saved object that is the network: averaged weights, trained ones, or the only part.

Optimizers, schedulers and random states are never taken. A part with tensors that is left out is named in a note. If
the choice is not clear, the error names the parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.formats.key_path import descend, not_asked_for
from soupcli.checkpoints.formats.names import EXTRA_STATE
from soupcli.checkpoints.formats.own_settings import is_own_number
from soupcli.checkpoints.formats.part_words import EVERY, MOST_NAMES, dotted, holds, is_every, kind, listed, under
from soupcli.checkpoints.formats.pickles.modules import is_module
from soupcli.checkpoints.formats.pickles.stand_ins import StandIn, find_in
from soupcli.checkpoints.formats.pickles.tensors import is_array, is_tensor, tensor_of
from soupcli.checkpoints.formats.saved_parts import CALLBACKS, SavedFile, matters, view_of
from soupcli.checkpoints.formats.training_state import is_training_state
from soupcli.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

AVERAGED = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "params_ema",
    "model_avg",
)
TRAINED = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "network_weights",
    "params",
    "module",
)
# Where `state_dict` holds averaged weights: the part with the trained ones, and one that says who wrote the file:
# Lightning's WeightAveraging, and mmengine's EMAHook.
SWAPPED = {"current_model_state": "averaging_state", "ema_state_dict": "message_hub"}
USUAL = frozenset({*AVERAGED, *TRAINED})
# Entries of files whose parts are one network: IP-Adapter's, and OpenNMT-py's, whose generator is the last layer.
TOGETHER = ({"image_proj", "ip_adapter"}, {"model", "generator", "vocab", "opt"})
MOST_LEVELS = 6


class NetworkPart(NamedTuple):
    """The state dict that was chosen."""

    key: str | None  # None: the object itself is the state dict
    tensors: dict[str, Any]
    notes: tuple[str, ...] = ()  # what a user should know about the choice
    averaged: bool = False  # whether the file says that these are averaged weights
    states: tuple[str, ...] = ()  # names of what lies among the tensors in another form, and is the network's

    @property
    def keys_of_states(self) -> frozenset[str]:
        """The keys of `states` in the file, with dots."""
        above = (self.key or "").removesuffix(EVERY).removesuffix(".")
        return frozenset(dotted(above, name) for name in self.states)


class _Choice(NamedTuple):
    name: str | None  # of the part; None: the object itself
    notes: tuple[str, ...] = ()
    averaged: bool = False


def network_part(path: Path, content: Any, *, key: str | None, is_tensor: Callable[[Any], bool]) -> NetworkPart:
    """Return the network's part of `content`, from the file at `path`.

    Raises CheckpointError if there is no state dict, if `key` is not there or leads into an optimizer, and if the
    choice is not clear.
    """
    file = SavedFile(path, is_tensor)
    if key is None and _is_one_network(file, content):
        key = EVERY
    if key is not None and is_every(key):
        above = key.removesuffix(EVERY).removesuffix(".")
        return _together(file, descend(file, content, above) if above else content, key)
    if key is not None and not _is_bare(file, content):
        found = _choose(file, descend(file, content, key), key, asked=True)
        return found._replace(notes=(*not_asked_for(file, content, key, USUAL), *found.notes))
    return _choose(file, content, None)


def _is_one_network(file: SavedFile, content: Any) -> bool:
    """Whether the parts of a file are one network, by the names of its entries."""
    view = view_of(content) or {}
    named = [name for name in view if file.has_names(view[name])]
    return any(view.keys() >= entries and len(entries.intersection(named)) > 1 for entries in TOGETHER)


def _is_bare(file: SavedFile, content: Any) -> bool:
    """Whether the object is only a state dict, so that there is nothing to choose."""
    view = view_of(content)
    if is_module(content) or view is None:
        return is_module(content)
    others = [value for value in view.values() if not file.is_tensor(value)]
    return len(others) < len(view) and not any(file.holds(value) for value in others)


def _choose(file: SavedFile, content: Any, key: str | None, *, asked: bool = False) -> NetworkPart:
    view = view_of(content)
    if view is None:
        hint = "save the network's state dict alone: torch.save(model.state_dict(), path)"
        raise CheckpointError(
            f"{file.path}: {holds(key)} a {kind(content)}, not a state dict",
            hint=hint if file.holds(content) else None,
        )
    choice = _Choice(None)
    if not is_module(content):
        choice = _preferred(file, view, key)
    if choice.name is None:
        notes = () if asked else choice.notes
        return NetworkPart(key, _tensors(file, view, key), notes, states=_states(file, view))
    if (key or "").count(".") >= MOST_LEVELS:
        raise CheckpointError(f"{file.path}: parts lie in parts more than {MOST_LEVELS} deep, down to {key!r}")
    part = next(value for name, value in view.items() if str(name) == choice.name)
    below = _choose(file, part, dotted(key, choice.name))
    return below._replace(notes=(*choice.notes, *below.notes), averaged=choice.averaged or below.averaged)


def _together(file: SavedFile, content: Any, key: str) -> NetworkPart:
    """Return all parts that may be a network as one. The name of each tensor begins with that of its part."""
    view = view_of(content) or {}
    names = [name for name, part in view.items() if _may_be_network(file, str(name), part) and file.has_names(part)]
    if not names:
        raise CheckpointError(
            f"{file.path}: --key {key}: no part there is a network", hint="leave --key out to see what the file holds"
        )
    parts = [_choose(file, view[name], str(name)) for name in names]
    named = [(f"{part.key}.{name}", tensor) for part in parts for name, tensor in part.tensors.items()]
    beside = [(str(name), value) for name, value in view.items() if name not in names]
    beside = [(name, value) for name, value in beside if matters(file, name, value)]
    named += [(name, value) for name, value in beside if file.is_tensor(value)]
    if len(dict(named)) < len(named):
        raise CheckpointError(f"{file.path}: --key {key}: two tensors would have one name")
    others = [name for name, value in beside if not file.is_tensor(value)]
    own = " and the tensors beside" if any(file.is_tensor(value) for _, value in beside) else ""
    said = f"weights are taken from {listed(repr(part.key) for part in parts)}{own}, as one network"
    left = (f"left out beside them: {listed(others)}",) if others else ()
    states = tuple(f"{part.key}.{name}" for part in parts for name in part.states)
    notes = (said, *left, *(note for part in parts for note in part.notes))
    return NetworkPart(key, dict(named), notes, states=states)


def _preferred(file: SavedFile, view: Mapping[Any, Any], key: str | None) -> _Choice:
    """Return the part to take, and notes on the others."""
    parts = [str(name) for name, value in view.items() if _may_be_network(file, str(name), value)]
    named = {str(name): value for name, value in view.items() if str(name) in parts and file.has_names(value)}
    trained = trained_beside(view)
    if trained is not None and "state_dict" in named:
        return _averaged(file, view, key, "state_dict", trained)
    if "model" in named and _is_stripped(view):
        return _averaged(file, view, key, "model", None)
    for names in (AVERAGED, TRAINED):
        found = [name for name in names if name in named]
        if found:
            _check_one(file, named, found, key)
            if names is TRAINED:
                return _Choice(found[0], _left_out(file, view, key, found[0]))
            return _averaged(file, view, key, found[0], next((name for name in TRAINED if name in named), None))
    if not parts:
        return _Choice(None, _unknown_objects(file, view))
    own = any(file.is_tensor(value) and not is_training_state(str(name), value) for name, value in view.items())
    if own and all(_names_alike(view, name) for name in parts):
        raise _of_the_same_names(file, parts, key)
    if own or len(named) != 1:
        raise _unclear(file, parts, key, own=own)
    [name] = named
    note = f"weights are taken from {dotted(key, name)!r}, the only part that may be a network"
    return _Choice(name, (note, *_left_out(file, view, key, name)))


def trained_beside(view: Mapping[Any, Any]) -> str | None:
    """Return the entry with the trained weights, if `state_dict` holds averaged ones."""
    return next((name for name, sign in SWAPPED.items() if name in view and sign in view), None)


def _is_stripped(view: Mapping[Any, Any]) -> bool:
    """Whether YOLO's strip_optimizer moved the averaged network to `model`."""
    return "updates" in view and all(view.get(name, view) is None for name in ("ema", "optimizer"))


def _may_be_network(file: SavedFile, name: str, value: Any) -> bool:
    if file.is_tensor(value) or name.endswith(EXTRA_STATE) or name == CALLBACKS or view_of(value) is None:
        return False
    if isinstance(value, StandIn) and value.entries is None and not is_module(value) and name not in USUAL:
        return False  # an object with attributes: what it does with its tensors is not known
    return file.holds(value) and not is_training_state(name, value)


def _averaged(file: SavedFile, view: Mapping[Any, Any], key: str | None, name: str, trained: str | None) -> _Choice:
    other = f"; the trained ones: --key {dotted(key, trained)}" if trained is not None else ""
    note = f"weights are taken from {dotted(key, name)!r}, which holds averaged ones{other}"
    return _Choice(name, (note, *_left_out(file, view, key, name, trained)), averaged=True)


def _check_one(file: SavedFile, parts: Mapping[str, Any], names: Sequence[str], key: str | None) -> None:
    """Raises CheckpointError if the parts are different networks: a file may hold one network under several names."""
    first, *others = (dict(_described(file, parts[name])) for name in names)
    if any(other != first for other in others):
        raise _unclear(file, names, key, own=False)


def _described(file: SavedFile, part: Any) -> Iterator[tuple[str, Any]]:
    """Map each name to a value that identifies the tensor in the file."""
    for name, value in (view_of(part) or {}).items():
        if file.is_tensor(value):
            yield str(name), tensor_of(value) if is_tensor(value) else id(value)


def _unclear(file: SavedFile, names: Iterable[str], key: str | None, *, own: bool) -> CheckpointError:
    places = [dotted(key, name) for name in names]
    each = ", or ".join(f"--key {name}" for name in places[:4])
    ways = f"{each}; or all as one network: --key '{dotted(key, EVERY)}'"
    if own:
        return CheckpointError(
            f"{file.path}: {holds(key)} tensors, and parts with further tensors: {listed(places)}",
            hint=f"take one part and nothing else: {ways}",
        )
    return CheckpointError(
        f"{file.path}: {holds(key)} parts that may each be the network: {listed(places)}",
        hint=f"say which: {ways}",
    )


def _names_alike(view: Mapping[Any, Any], name: str) -> bool:
    """Whether a part has numbers for the tensors beside it: their masks, gradients, importance, first values."""
    part = next((view_of(value) for beside, value in view.items() if str(beside) == name), None)
    return bool(part) and {str(each) for each in part or {}} <= {str(beside) for beside in view}


def _of_the_same_names(file: SavedFile, parts: Sequence[str], key: str | None) -> CheckpointError:
    places = listed(dotted(key, name) for name in parts)
    return CheckpointError(
        f"{file.path}: {holds(key)} tensors, and further numbers for the same names: {places}",
        hint=f"save the tensors without {places}: torch.save({{name: value for name, value in state.items() if "
        f"name not in {list(parts[:MOST_NAMES])}}}, other_path)",
    )


def _left_out(
    file: SavedFile, view: Mapping[Any, Any], key: str | None, chosen: str, said: str | None = None
) -> tuple[str, ...]:
    """Return a note on left-out parts with tensors, except those in `said`."""
    names = [str(name) for name, value in view.items() if matters(file, str(name), value)]
    names = [name for name in names if name not in (chosen, said)]
    every = said is None and any(_is_state_dict(file, view[name]) for name in names if name in view)
    way = f"; --key '{dotted(key, EVERY)}' mixes all as one network" if every and chosen not in AVERAGED else ""
    left = listed(dotted(key, name) for name in names)
    return (f"left out beside {dotted(key, chosen)!r}: {left}{way}",) if names else ()


def _is_state_dict(file: SavedFile, value: Any) -> bool:
    return any(file.is_tensor(inner) for inner in (view_of(value) or {}).values())


HARMLESS = ("argparse.", "pathlib.", "datetime.", "omegaconf.", "numpy.", "builtins.", "collections.", "torch.")


def _unknown_objects(file: SavedFile, view: Mapping[Any, Any]) -> tuple[str, ...]:
    """A note on objects in a bare state dict that are no tensors, as far as one can see without their classes."""
    found = [
        f"{name!r} ({value.full_name})"
        for name, value in view.items()
        if isinstance(value, StandIn)
        and not file.is_tensor(value)
        and not str(name).endswith(EXTRA_STATE)
        and not value.full_name.startswith(HARMLESS)
    ]
    return (f"left out, since they are no tensors: {listed(found)}",) if found else ()


def _states(file: SavedFile, view: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the names of plain numbers, and of what modules return from get_extra_state, if it is no tensor."""
    beside = ((str(name), value) for name, value in view.items() if value is not None and not file.is_tensor(value))
    return tuple(name for name, value in beside if name.endswith(EXTRA_STATE) or is_own_number(name, value))


def _tensors(file: SavedFile, view: Mapping[Any, Any], key: str | None) -> dict[str, Any]:
    """Return the tensors of a state dict by name. Raises CheckpointError if there are none, or one has no name."""
    tensors: dict[str, Any] = {}
    for stored, value in view.items():
        if file.is_tensor(value):
            name = _name_of(file, stored, key)
            if name in tensors:
                raise CheckpointError(
                    f"{file.path}: {holds(key)} two tensors with the name {name}, as a text and as a number",
                    hint="give them names that differ, and save the file again",
                )
            tensors[name] = value
        elif is_array(value):
            raise CheckpointError(
                f"{file.path}: tensor {str(stored)!r}{under(key)} is a numpy array",
                hint="save it as a tensor: torch.from_numpy(array)",
            )
        elif not str(stored).endswith(EXTRA_STATE) and not is_training_state(str(stored), value) and file.holds(value):
            raise CheckpointError(
                f"{file.path}: {stored!r}{under(key)} is a {kind(value)} of tensors without names",
                hint="save each under a name: torch.save(model.state_dict(), path) does",
            )
    if not tensors and next(find_in(view, is_array), None) is not None:
        raise CheckpointError(
            f"{file.path}: no state dict{under(key)}: its numbers are numpy arrays, not tensors",
            hint="save them as tensors: torch.from_numpy(array)",
        )
    if not tensors:
        raise CheckpointError(f"{file.path}: no state dict{under(key)}: it holds {listed(map(repr, map(str, view)))}")
    return tensors


def _name_of(file: SavedFile, stored: Any, key: str | None) -> str:
    if isinstance(stored, bool) or not isinstance(stored, str | int):
        raise CheckpointError(f"{file.path}: a tensor{under(key)} has a {kind(stored)} for a name, not a text")
    try:
        str(stored).encode()
    except UnicodeEncodeError as cause:
        raise CheckpointError(f"{file.path}: the name {stored!r}{under(key)} is no valid text") from cause
    return str(stored)
