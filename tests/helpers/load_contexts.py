"""What load functions are given in tests: a network that computes nothing, with this tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from soupcli.datasets.load_context import LoadContext
from soupcli.networks.network import IMAGE_FOLDER, Network, Outline


def load_context(
    tokenizer: Any = None,
    *,
    label_names: tuple[str, ...] | None = None,
    beside: Mapping[str, Sequence[str]] = {},
    pad_token_id: int | None = None,
    longest_input: int | None = None,
    **options: Any,
) -> LoadContext:
    """Lists of classes lie `beside` the weights; `options` are those of LoadContext."""
    network = Network(
        nn.Identity(),
        tokenizer=tokenizer,
        outline=Outline(IMAGE_FOLDER, label_names, stated=beside),
        pad_token_id=pad_token_id,
        longest_input=longest_input,
    )
    return LoadContext(network=network, **options)
