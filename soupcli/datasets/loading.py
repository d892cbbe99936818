"""What the functions that load sets are given, whatever the kind of the set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from soupcli.datasets.input_cache import InputCache
from soupcli.errors import NetworkError
from soupcli.progress import Progress, silent, unsaid

if TYPE_CHECKING:
    from soupcli.networks.network import Network


@dataclass(frozen=True, eq=False, kw_only=True)
class Loading:
    """The network that inputs are made for, and what is said and kept while they are made.

    `name` is the set in messages, `beside` the path at which a tokenizer was looked for. `metric` decides whether
    labels are classes or numbers. `cache` has inputs that earlier runs have made; `mark` tells the network's tokenizer
    from all others. `workers` threads decode, one for each core if it is None.
    """

    network: Network
    name: str = "val"
    beside: str = ""
    metric: str = "accuracy"
    workers: int | None = None
    cache: InputCache = field(default_factory=lambda: InputCache(None))
    mark: str = ""
    warn: Callable[[str], None] = unsaid
    progress: Progress = silent


def tokenizer_of(given: Loading) -> Any:
    """The network's tokenizer. Raises NetworkError if there is none."""
    if given.network.tokenizer is None:
        raise NetworkError(
            f"{given.name}: {given.beside} holds no tokenizer",
            hint="tokenizer.save_pretrained(...) puts one beside the weights",
        )
    return given.network.tokenizer
