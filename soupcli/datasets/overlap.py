"""Counts the examples that two sets share, by a hash of each decoded example, kept between runs.

An example is its picture after the network's transform, its tokens, or its tensor. Labels are ignored.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.datasets.examples import ArrayExamples, Examples, TokenExamples
from soupcli.datasets.holdout import PartOfExamples
from soupcli.datasets.tokens import TokenWindows
from soupcli.files.json_store import Inputs, JsonStore
from soupcli.files.reading import memory_of
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "soup-contents/3"


def content_of(example: bytes) -> int:
    """Return a 64-bit hash of an example."""
    return int.from_bytes(hashlib.blake2b(example, digest_size=8).digest(), "little", signed=True)


def contents_of(examples: Examples) -> Tensor:
    """Return content hashes of the examples, int64 [N]; for a part only of its own."""
    indices = torch.arange(len(examples.labels))
    while isinstance(examples, PartOfExamples):
        indices, examples = examples.indices[indices], examples.whole
    return torch.tensor([content_of(_raw(examples, index)) for index in indices.tolist()], dtype=torch.int64)


def _raw(examples: Examples, index: int) -> bytes:
    """Return example `index` before it becomes part of a batch."""
    if isinstance(examples, TokenWindows):
        own = examples.ids[int(examples.starts[index]) : int(examples.ends[index])]
    elif isinstance(examples, TokenExamples):
        own = examples.columns["input_ids"][int(examples.starts[index]) : int(examples.starts[index + 1])]
    else:
        assert isinstance(examples, ArrayExamples)
        own = examples.inputs[index].to("cpu")
    dense = own.contiguous()  # it owns the memory
    return bytes(memory_of(dense))


def shared(contents: Tensor, others: Tensor) -> int:
    """Count how many of the first are among the second."""
    return int(torch.isin(contents, others).sum())


class ContentStore:
    """Content hashes of sets by key in `folder`. If the folder cannot be used, nothing is kept."""

    def __init__(self, folder: Path, *, inputs: Inputs | None = None) -> None:
        self._store = JsonStore(folder, SCHEMA, inputs=inputs)

    def get(self, key: str) -> Tensor | None:
        """Return the hashes, int64 [N], or None."""
        try:
            raw = bytearray(base64.b64decode(self._store.get(key) or "", validate=True))
            return torch.frombuffer(raw, dtype=torch.int64) if raw else None
        except (RuntimeError, ValueError, TypeError):  # not what `put` writes
            return None

    def put(self, key: str, contents: Tensor) -> None:
        """Keep the hashes."""
        dense = contents.contiguous()  # it owns the memory
        self._store.put(key, base64.b64encode(memory_of(dense)).decode())
