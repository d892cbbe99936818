"""Types for weights that are stored in parts: the form, the parts of one weight, and names by module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import TensorSpec

Module = Mapping[str, "TensorSpec"]  # last part of a name -> the tensor's shape and dtype


class Form(NamedTuple):
    """One way to store a weight in parts."""

    name: str
    part: re.Pattern[str]  # the last part of a name, of a tensor that says which form it is
    beside: re.Pattern[str] | None  # and of another one in the same module; None: the first is enough
    hint: str  # how to get whole weights
    part_is: str = ""  # what an error calls a part


def form_of_parts(name: str, part_is: str, hint: str) -> Form:
    """Return a form that no name of a part tells, by what an error calls a part."""
    return Form(name, _NEVER, None, hint, part_is)


_NEVER = re.compile(r"(?!)")


class Together(NamedTuple):
    """Tensors of one module that together are one weight."""

    form: Form
    names: tuple[str, ...]  # those of which a difference makes the mean wrong; the one to show comes first


def modules_of(tensors: Mapping[str, TensorSpec]) -> dict[str, dict[str, TensorSpec]]:
    """Return tensors by module, and there by the last part of their names."""
    modules: dict[str, dict[str, TensorSpec]] = {}
    for name, spec in tensors.items():
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, {})[leaf] = spec
    return modules


def joined(module: str, leaf: str) -> str:
    """Return the whole name."""
    return f"{module}.{leaf}" if module else leaf


SEPARATORS = re.compile(r"[._-]")
# Words of names of what a weight is multiplied by.
FACTORS = frozenset(("scale", "scales", "descale", "wscale", "qscale", "amax", "absmax", "s", "inv", "factor"))


def is_called_factor(leaf: str, other: str) -> bool:
    """Whether `other`, beside the tensor `leaf`, may be what it is multiplied by, by its name: `w_scale` beside `w`."""
    words, others = (set(filter(None, SEPARATORS.split(name.lower()))) for name in (leaf, other))
    return not others.isdisjoint(FACTORS) and others - FACTORS <= words | {"weight"}
