"""The result of opening a file of any format, and the user's options for opening."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Origin, StoredTensor, TensorSpec


class How(NamedTuple):
    """The user's options for opening checkpoints."""

    weights_name: str | None = None  # the file to take from a folder that holds several
    key: str | None = None  # where the state dict lies in a file of torch.save
    trust: bool = False  # needless since pickles are read with stand-ins; kept, as `allow` is, for those who say it
    allow: tuple[str, ...] = ()
    base: Path | None = None  # the network that adapters were trained on
    cached: bool = False  # whether models of the Hub are taken from its cache alone


class Contents(NamedTuple):
    """The content of one file: specs and places of its tensors, and the key that held them."""

    specs: dict[str, TensorSpec]
    places: dict[str, StoredTensor]
    origin: Origin
