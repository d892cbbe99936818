"""The arguments of every function that loads a set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from soupcli.datasets.input_cache import InputCache
from soupcli.errors import NetworkError, ValidationError
from soupcli.progress import Progress, silent, unsaid

if TYPE_CHECKING:
    from soupcli.networks.network import Network


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadContext:
    """The network that inputs are made for, and where messages and results go.

    `name` is the set in messages, `beside` the path of the tokenizer. `metric` decides whether labels are classes or
    numbers. `cache` has inputs of earlier runs; `mark` identifies the network's tokenizer. `workers` threads decode, by
    default one for each core.
    """

    network: Network
    name: str = "val"
    beside: str = ""
    metric: str = "accuracy"
    workers: int | None = None
    cache: InputCache = field(default_factory=lambda: InputCache(None))
    mark: str = ""
    warn: Callable[[str], None] = unsaid
    note: Callable[[str], None] = unsaid
    progress: Progress = silent


EMBEDS = (
    "an encoder without a classifier, such as sentence-transformers', gives embeddings: "
    "{python: 'my_eval.py:spearman'} is a set with a function of (model, device) that compares them with the scores, "
    "see docs/embeddings.md"
)


def tokenizer_of(given: LoadContext) -> Any:
    """Return the network's tokenizer. Raises NetworkError if there is none."""
    if given.network.embeds:
        raise NetworkError(f"{given.name}: the network gives embeddings of sentences, no logits", hint=EMBEDS)
    if given.network.tokenizer is None:
        raise NetworkError(
            f"{given.name}: {given.beside} holds no tokenizer",
            hint="tokenizer.save_pretrained(...) puts one beside the weights",
        )
    return given.network.tokenizer


def encoded(tokenizer: Any, *texts: Any, where: str, **how: Any) -> Any:
    """Tokenize the texts. Raises ValidationError if that fails; `where` names the file."""
    try:
        return tokenizer(*texts, **how)
    except Exception as cause:  # whatever the library and the folder's own settings make of them
        first_line = next(iter(str(cause).strip().splitlines()), "")
        raise ValidationError(
            f"{where}: the tokenizer fails: {type(cause).__name__}: {first_line}",
            hint="does it take these texts by itself? tokenizer_config.json says how",
        ) from cause
