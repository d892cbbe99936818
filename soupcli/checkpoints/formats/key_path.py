"""Follows a dotted key, as --key names it, into a saved object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.formats.part_words import dotted, listed
from soupcli.checkpoints.formats.saved_parts import matters, view_of
from soupcli.checkpoints.formats.training_state import is_optimizer
from soupcli.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from soupcli.checkpoints.formats.saved_parts import SavedFile


def descend(file: SavedFile, content: Any, key: str) -> Any:
    """Return the part under a dotted key. Raises CheckpointError if it is missing or belongs to an optimizer."""
    part, left = content, key
    while left:
        _check_no_optimizer(file, part, key)
        step = _step(view_of(part) or {}, left)
        if step is None:
            names = [str(name) for name in view_of(part) or {}]
            raise CheckpointError(
                f"{file.path}: has no key {key!r}, only {listed(map(repr, names))}", hint="--key takes one of these"
            )
        part = next(value for name, value in (view_of(part) or {}).items() if str(name) == step)
        left = left[len(step) + 1 :]
    _check_no_optimizer(file, part, key)
    return part


def _check_no_optimizer(file: SavedFile, part: Any, key: str) -> None:
    if is_optimizer(part):
        raise CheckpointError(
            f"{file.path}: --key {key} leads into the state of an optimizer, which is no network",
            hint="leave --key out to see what else the file holds",
        )


def not_asked_for(file: SavedFile, content: Any, key: str, versions: Collection[str]) -> tuple[str, ...]:
    """Return a note on parts with tensors beside those that `key` leads to.

    `versions` are names of one network's weights, trained or averaged: of these one alone is to be taken.
    """
    names: list[str] = []
    view, above, left = view_of(content) or {}, None, key
    while left:
        step = _step(view, left)
        assert step is not None
        beside = [str(name) for name, value in view.items() if matters(file, str(name), value)]
        names += [dotted(above, name) for name in beside if name != step and not {name, step}.issubset(versions)]
        above, left = dotted(above, step), left[len(step) + 1 :]
        view = view_of(next(value for name, value in view.items() if str(name) == step)) or {}
    return (f"left out beside {key!r}: {listed(names)}",) if names else ()


def _step(view: Mapping[Any, Any], left: str) -> str | None:
    """Return the part that the rest of a dotted key begins with."""
    return next((name for name in map(str, view) if left == name or left.startswith(f"{name}.")), None)
