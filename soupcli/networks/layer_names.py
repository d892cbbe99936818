"""Which tensors are a layer, from their names alone."""

from __future__ import annotations

from collections.abc import Iterable


def layers_by_name(names: Iterable[str]) -> dict[str, list[str]]:
    """Tensor names by layer, from the names alone: `blocks.3`, `bert.encoder.layer.0`, `stages.2.blocks.1`, `head`.

    A layer is a numbered part with parts of its own, the deepest of them that stand one in another
    (`stages.2.blocks.1`); what lies in none is by the module that holds it.
    """
    numbered = {name: _numbered(name) for name in names}
    blocks = {prefix for found in numbered.values() for prefix, rest in found if "." in rest}
    divided: dict[str, list[str]] = {}
    for name, found in numbered.items():
        inside = [prefix for prefix, _ in found if prefix in blocks]
        divided.setdefault(inside[-1] if inside else name.rpartition(".")[0] or name, []).append(name)
    return divided


def _numbered(name: str) -> list[tuple[str, str]]:
    """(`stages.2`, `blocks.1.fc1.weight`), (`stages.2.blocks.1`, `fc1.weight`): each number close to the one before."""
    parts = name.split(".")
    found: list[tuple[str, str]] = []
    last: int | None = None
    for place, part in enumerate(parts[:-1]):
        if part.isdigit() and (last is None or place - last <= 2):
            found.append((".".join(parts[: place + 1]), ".".join(parts[place + 1 :])))
            last = place
    return found
