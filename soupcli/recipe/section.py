"""What all parts of a recipe have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
