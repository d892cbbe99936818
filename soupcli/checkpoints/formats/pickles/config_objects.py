"""Objects that libraries of configuration pickle, as the dicts, lists and values that they stand for.

opened(<omegaconf.DictConfig>)                          # {"labels": <omegaconf.ListConfig>, "lr": <omegaconf.AnyNode>}
"""

from __future__ import annotations

import re
from typing import Any

from soupcli.checkpoints.formats.pickles.pandas_objects import held_by_pandas
from soupcli.checkpoints.formats.pickles.stand_ins import ENCODED, Global, StandIn

# The attribute that holds what an object stands for, by its class.
CONTENT = (
    (re.compile(r"omegaconf\.\w+\.(Dict|List)Config"), "_content"),  # omegaconf/basecontainer.py
    (re.compile(r"omegaconf\.nodes\.\w+Node"), "_val"),
    (re.compile(r"ml_collections\..*\.(Frozen)?ConfigDict"), "_fields"),
    (re.compile(r"collections\.User(Dict|List)|UserDict\.\w+"), "data"),
    (re.compile(r"fastcore\.foundation\.L"), "items"),
)
GETATTR = "builtins.getattr"
DEEPEST = 4  # objects in objects that stand for one value


def opened(value: Any) -> Any:
    """Return the dict, list or value that an object stands for; anything else as it is."""
    if isinstance(value, StandIn) and _is_named_tuple(value):
        return list(value.args)
    for _ in range(DEEPEST):
        of_pandas = held_by_pandas(value) if isinstance(value, StandIn) else None
        if of_pandas is not None:
            value = of_pandas
            continue
        if not isinstance(value, StandIn) or not (value.items or value.state):
            break  # such as a tensor
        held = next((key for name, key in CONTENT if name.fullmatch(value.full_name)), None)
        if held is not None and held in value.attributes:
            value = value.attributes[held]
        elif value.items:  # a list of a class of its own
            value = value.items
        else:
            break
    return value


def _is_named_tuple(value: StandIn) -> bool:
    """Whether an object is made of texts alone, as a namedtuple of names is. Bytes and paths may be too."""
    args = value.args if isinstance(value.args, tuple) else ()
    texts = len(args) > 1 and all(isinstance(each, str) for each in args)
    is_other = value.full_name in ENCODED or value.full_name.startswith("pathlib.")
    return texts and value.state is None and not is_other


def opened_items(value: Any) -> Any:
    """Return what `opened` does, with the items of a list opened too."""
    value = opened(value)
    if isinstance(value, list | tuple) and any(isinstance(item, StandIn) for item in value):
        return [_member(opened(item)) for item in value]
    return value


def _member(value: Any) -> Any:
    """Return the text that a member of an Enum has for a value, or its name; anything else as it is."""
    found = member_of(value) if isinstance(value, StandIn) else None
    return found[1] if found is not None and isinstance(found[1], str) else value


def member_of(value: StandIn) -> tuple[str, str | int] | None:
    """Return the class of a member of an Enum and its value, or what Python 3.11.0 to 3.11.3 pickle, its name."""
    args = value.args if isinstance(value.args, tuple) and not value.attributes else ()
    if len(args) == 1 and isinstance(args[0], str | int):
        return value.full_name.rpartition(".")[2], args[0]
    if value.full_name == GETATTR and len(args) == 2 and isinstance(args[0], Global) and isinstance(args[1], str):
        return args[0].name, args[1]
    return None
