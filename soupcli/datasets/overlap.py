"""Which examples two sets share: by a hash of each decoded example, kept between runs.

An example is its picture as the network's transform leaves it, its tokens, or its tensor; labels play no part.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from soupcli.datasets.examples import ArrayExamples, Examples, TokenExamples
from soupcli.datasets.holdout import PartOfExamples
from soupcli.datasets.tokens import TokenWindows
from soupcli.errors import OutputError
from soupcli.files.atomic import write_whole
from soupcli.files.json_text import dump_json
from soupcli.files.reading import memory_of

SCHEMA = "soup-contents/1"


def content_of(example: bytes) -> int:
    """64 bits that tell an example from others."""
    return int.from_bytes(hashlib.blake2b(example, digest_size=8).digest(), "little", signed=True)


def contents_of(examples: Examples) -> Tensor:
    """int64 [N], one for each example; of a part, of its own alone."""
    indices = torch.arange(len(examples.labels))
    while isinstance(examples, PartOfExamples):
        indices, examples = examples.indices[indices], examples.whole
    return torch.tensor([content_of(_raw(examples, index)) for index in indices.tolist()], dtype=torch.int64)


def _raw(examples: Examples, index: int) -> bytes:
    """What example `index` is before it becomes part of a batch."""
    if isinstance(examples, TokenWindows):
        own = examples.ids[int(examples.starts[index]) : int(examples.ends[index])]
    elif isinstance(examples, TokenExamples):
        own = examples.columns["input_ids"][int(examples.starts[index]) : int(examples.starts[index + 1])]
    else:
        assert isinstance(examples, ArrayExamples)
        own = examples.inputs[index].to("cpu")
    return bytes(memory_of(own.contiguous()))


def shared(contents: Tensor, others: Tensor) -> int:
    """How many of the first are among the second."""
    return int(torch.isin(contents, others).sum())


class ContentStore:
    """Contents of sets by key in `folder`, one file a key; what cannot be read or written is not kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Tensor | None:
        """int64 [N], or None."""
        try:
            document = json.loads(self._file(key).read_bytes())
            if (document["schema"], document["key"]) != (SCHEMA, key):
                return None
            return torch.tensor(document["contents"], dtype=torch.int64)
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, RecursionError):
            return None

    def put(self, key: str, contents: Tensor) -> None:
        """Keeps them."""
        try:
            write_whole(self._file(key), dump_json({"schema": SCHEMA, "key": key, "contents": contents.tolist()}))
        except (OutputError, OSError):
            return

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
