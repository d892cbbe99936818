"""The base of all parts of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Tag


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def one_of(kinds: Mapping[str, type[Section]]) -> Any:
    """The type of a section of any of these kinds, by the key that names the kind."""
    tagged = tuple(Annotated[section, Tag(key)] for key, section in kinds.items())
    return Annotated[Union[tagged], kind_among(tuple(kinds))]  # noqa: UP007


def kind_among(kinds: tuple[str, ...]) -> Discriminator:
    """Tells the members of a union apart by the key that names the kind."""

    def kind(value: Any) -> str | None:
        keys = value if isinstance(value, dict) else {name: 0 for name in kinds if hasattr(value, name)}
        found = [name for name in kinds if name in keys]
        return found[0] if len(found) == 1 else None

    return Discriminator(
        kind,
        custom_error_type="kind",
        custom_error_message=f"needs exactly one of the keys {', '.join(kinds)}",
    )
