"""Settings of a network and of its inputs that lie beside the weights in one file, or in files of a training.

settings_in({"args": Namespace(imgsz=640, lr=0.1)})     # {"args.imgsz": "640"}
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

from soupcli.checkpoints.formats.class_lists import entries_of_text, is_document
from soupcli.checkpoints.formats.names import EXTRA_STATE
from soupcli.checkpoints.formats.numpy_names import numbers_of
from soupcli.checkpoints.formats.pickles.config_objects import member_of, opened_items
from soupcli.checkpoints.formats.pickles.layers import settings_of_layers
from soupcli.checkpoints.formats.pickles.modules import is_module
from soupcli.checkpoints.formats.pickles.stand_ins import Global, StandIn, entries_of
from soupcli.checkpoints.formats.pickles.tensors import is_array, is_tensor
from soupcli.checkpoints.formats.setting_words import FILE, NAMED, is_of_network, kind_of
from soupcli.checkpoints.formats.training_state import is_optimizer, is_training_state

DEEPEST = 5  # levels that are searched
MOST = 20_000  # entries that are looked at
MOST_SHOWN = 16  # numbers of one setting that are shown; more are told by their hash
LONGEST = 100  # letters of a value
NumbersOf = Callable[[Any], "bytes | None"]  # of a tensor


def settings_in(
    document: Any,
    numbers_of_tensor: NumbersOf = lambda _: None,
    *,
    network: str | None = None,
    own: Collection[str] = (),
    named: str = "",
) -> dict[str, str]:
    """Return the settings of the network and of its inputs in a document, as text, by their dotted keys.

    The state dict, which lies at the key `network` ("" for the document itself), and states of a training are not
    searched but for the entries with the dotted keys `own`, of modules only their own attributes, and those of torch's
    layers in them. `named` is what the document is called, and the first part of keys.
    """
    found: dict[str, str] = _of_layers(document, network) if network is not None else {}
    waiting, seen = deque([(f"{named}." if named else "", 1, document)]), 0
    tensors = f"{network}." if network else network
    while waiting and seen < MOST:
        prefix, depth, value = waiting.popleft()
        view = _searched(value)
        is_state_dict = prefix == tensors or len(view) > MOST_SHOWN
        for name, inner in view.items():
            if is_state_dict and (is_tensor(inner) or (prefix == tensors and is_array(inner))):
                continue
            seen += 1
            key = f"{prefix}{name}"
            is_own = key in own
            text = _text(str(name), inner, numbers_of_tensor) if is_own or kind_of(key) is not None else None
            text = _whole(inner) if is_own and key.endswith(EXTRA_STATE) else text
            if text is not None:
                found[key] = text
            elif depth < DEEPEST and not is_own and _may_hold(str(name), inner):
                waiting.append((f"{key}.", 1 if isinstance(inner, str) else depth + 1, inner))
    return found


def _of_layers(document: Any, key: str) -> dict[str, str]:
    """Return the settings of torch's layers in the module at a dotted key, if a module lies there."""
    module = document
    for name in key.split(".") if key else ():
        module = (entries_of(module) or {}).get(name)
    layers = settings_of_layers(module) if is_module(module) else {}
    texts = ((f"{key}.{name}" if key else name, _text(name, value, lambda _: None)) for name, value in layers.items())
    return {name: text for name, text in texts if text is not None}


def is_own_number(name: str, value: Any) -> bool:
    """Whether an entry of a state dict is a number, or several, that the network computes with."""
    value = opened_items(value)
    items = value[:MOST] if isinstance(value, list | tuple) else [value]
    items = [numbers_of(item) if isinstance(item, StandIn) else item for item in items]
    return bool(items) and all(isinstance(item, int | float) for item in items) and is_of_network(name)


def _whole(state: Any) -> str | None:
    """Return what a module keeps beside its tensors as text, if it is plain."""
    try:
        text = json.dumps(state, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return None
    return text if len(text) <= LONGEST else hash_of(text.encode(), "a state")


def _may_hold(name: str, value: Any) -> bool:
    value = opened_items(value)
    plain = isinstance(value, str | int | float | bool | None) and not is_document(value)
    known = plain or is_tensor(value) or is_array(value)
    of_training = is_optimizer(value) if name == "opt" else is_training_state(name, value)  # YOLOv5's is of settings
    return not known and not of_training


def _searched(value: Any) -> Mapping[Any, Any]:
    """Return the entries of a dict, object or text that may be settings."""
    value = opened_items(value)
    if isinstance(value, str):
        return entries_of_text(value) or {}
    if isinstance(value, list | tuple):
        parts = dict(enumerate(value)) if len(value) <= MOST_SHOWN else {}
        return {place: part for place, part in parts.items() if isinstance(part, dict | StandIn)}
    if isinstance(value, StandIn) and (is_module(value) or value.entries is None):
        attributes = value.attributes if not is_tensor(value) else {}
        return {name: inner for name, inner in attributes.items() if not str(name).startswith("_")}
    return entries_of(value) or {}


def _text(name: str, value: Any, numbers_of_tensor: NumbersOf) -> str | None:
    """Return a value as text: equal texts are equal values. None for what is no single value or list of them."""
    value = opened_items(value)
    if isinstance(value, str):
        return _name(name, value) if len(value) <= LONGEST else hash_of(value.encode("utf-8", "replace"), "a text")
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if is_tensor(value):
        content = numbers_of_tensor(value)
        return hash_of(content, "numbers") if content is not None else None
    if isinstance(value, Global):  # a class or function of the network's, wherever its library keeps it
        return value.full_name.rpartition(".")[2]
    if isinstance(value, StandIn):
        return _of_object(value)
    if isinstance(value, list | tuple) and value:
        return _of_list(value)
    return None


def _of_object(value: StandIn) -> str | None:
    """Return a number of numpy, a hash of an array, a member of an Enum, the class of a module; None for others."""
    numbers = numbers_of(value)
    if numbers is not None:
        return hash_of(numbers, "numbers") if isinstance(numbers, bytes) else repr(numbers)
    if is_module(value):
        return value.full_name.rpartition(".")[2]
    member = member_of(value)
    return f"{member[0]}({str(member[1])[:LONGEST]!r})" if member is not None else None


def _of_list(value: list[Any] | tuple[Any, ...]) -> str | None:
    items = [numbers_of(item) if isinstance(item, StandIn) else item for item in value[:MOST]]
    if not all(isinstance(item, str | int | float | bool) for item in items):
        return None
    text = json.dumps(items)
    return text if len(items) <= MOST_SHOWN and len(text) <= LONGEST else hash_of(text.encode(), f"{len(items)} values")


def _name(key: str, value: str) -> str | None:
    """Return a text, of a network's name what comes before its pretrained weights' tag; None for a file."""
    if key.lower() not in NAMED:
        return json.dumps(value)
    return None if FILE.search(value) else json.dumps(value.partition(".")[0])


def hash_of(content: bytes, what: str) -> str:
    """Return what stands for a long content in a message: equal ones are equal texts."""
    return f"{what}, sha256:{hashlib.sha256(content).hexdigest()[:12]}"
