"""How keys and messages name the parts of a saved object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.formats.pickles.stand_ins import Opaque, StandIn
from soupcli.checkpoints.formats.pickles.tensors import is_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_NAMES = 8
EVERY = "*"  # as a key: all parts, as one network


def is_every(key: str | None) -> bool:
    """Whether a key means all parts of a dict, as one network."""
    return key is not None and (key == EVERY or key.endswith(f".{EVERY}"))


def dotted(key: str | None, name: str) -> str:
    """Return the key of the part `name` of what lies at `key`."""
    return f"{key}.{name}" if key else name


def under(key: str | None) -> str:
    """Return the words behind a thing that lies at `key`; "" for the object itself."""
    return f" under {key!r}" if key else ""


def holds(key: str | None) -> str:
    """Return the words before what a file holds, or what lies at `key`."""
    return f"under {key!r} are" if key else "holds"


def kind(value: Any) -> str:
    """Return the name of a pickled object's class."""
    if is_tensor(value):
        return "tensor"
    value = value.value if isinstance(value, Opaque) else value
    return value.full_name if isinstance(value, StandIn) else type(value).__name__


def listed(names: Iterable[str]) -> str:
    """Return the first names, for a message; "nothing" if there are none."""
    held = list(names)
    return ", ".join(held[:MOST_NAMES]) + (", ..." if len(held) > MOST_NAMES else "") or "nothing"
