"""Logits that outlive a run: one safetensors file for each network and set, in half precision.

    file = LogitFolder(Path("logits")).file(source)
    file.save(collected)                       # while the network is evaluated
    logits_nk = file.rows(0, 1024)             # in any later run, with no forward pass

A row is kept as what is left when its largest logit is taken away, in float16, beside that largest one in float32: the
logits that matter lie near 0, where float16 is finest, and no size of the logits overflows. Differences that do
(more than 65504 below the largest) are divided by a power of two that the header states. `logits * scale +
largest[:, None]` is what the network gave.

Letters in names: n examples, k classes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import safetensors

from soupcli.files.atomic import write_whole
from soupcli.files.json_store import DAMAGED, Depends, Inputs, parsed
from soupcli.files.kept_file import open_kept, refusal
from soupcli.files.own_file import check_target
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.metrics.metric import LabelKind

SCHEMA = "soup-logits/3"
LARGEST_FILE = 1 << 42  # bytes
LARGEST = 65504.0  # of float16
KINDS: tuple[LabelKind, ...] = ("classes", "several", "multilabel", "numbers")  # what a network has logits for
# What a file that is damaged, cut short or not ours raises while its header is read.
NOT_OURS = (safetensors.SafetensorError, *DAMAGED)
DTYPES = {"logits": ("F16",), "largest": ("F32",), "labels": ("I64", "F64", "U8")}


class LogitsSource(NamedTuple):
    """The source of logits: the network's hash, the set's fingerprint, and a key of everything else.

    `checkpoint` and `set_name` are for messages.
    """

    key: str
    hash: str
    fingerprint: str
    checkpoint: str
    set_name: str


class Header(NamedTuple):
    """The header of the file."""

    key: str
    kind: LabelKind
    scale: float
    depends: Depends


class Collected:
    """The logits of a set, filled batch by batch in any order."""

    def __init__(self, labels: Tensor, kind: LabelKind) -> None:
        self.labels = labels
        self.kind = kind
        self._logits_nk: Tensor | None = None
        self._seen = 0

    def __call__(self, indices: Tensor, logits_nk: Tensor) -> None:
        """Takes the logits of these examples."""
        if self._logits_nk is None:
            self._logits_nk = torch.empty(len(self.labels), logits_nk.shape[1])
        self._logits_nk[indices] = logits_nk.to("cpu", torch.float32)
        self._seen += len(indices)

    @property
    def is_whole(self) -> bool:
        """Whether the logits of every example are there. They are not if the evaluation stopped early."""
        return self._seen == len(self.labels)

    def packed(self) -> tuple[dict[str, Tensor], float]:
        """The tensors of the file, and the scale of `logits`."""
        assert self._logits_nk is not None
        largest_n = self._logits_nk.amax(dim=1)
        if self.kind == "multilabel":  # each logit is judged by itself, against 0
            largest_n = torch.zeros_like(largest_n)
        below_nk = self._logits_nk - largest_n[:, None]
        furthest, scale = float(below_nk[below_nk.isfinite()].abs().amax()) if below_nk.isfinite().any() else 0.0, 1.0
        while furthest / scale > LARGEST:
            scale *= 2
        tensors = {"logits": (below_nk / scale).to(torch.float16), "largest": largest_n, "labels": self.labels}
        return tensors, scale


@dataclass(frozen=True)
class LogitFile:
    """The file of one source's logits. `inputs` records what else they depend on."""

    path: Path
    source: LogitsSource
    inputs: Inputs | None = None

    @property
    def is_there(self) -> bool:
        """Whether the file is complete, of this source, and written by this user. If not, it is replaced."""
        try:
            if refusal(self.path.parent) is not None:
                return False
            os.close(open_kept(self.path, most=LARGEST_FILE))
            header = self._header()
            depends = header.depends
            holds = not depends or (self.inputs is not None and self.inputs.holds(depends))
        except NOT_OURS:
            return False
        return header.key == self.source.key and holds

    def save(self, collected: Collected) -> None:
        """Write the file, whole or not at all. Raises OutputError."""
        from safetensors.torch import save

        tensors, scale = collected.packed()
        depends = self.inputs.depends() if self.inputs is not None else []
        content = {"schema": SCHEMA, "kind": collected.kind, "scale": scale, "depends": depends}
        content |= self.source._asdict()
        data = save(tensors, metadata={"soup": json.dumps(content, sort_keys=True)})
        check_target(self.path, "logits")
        write_whole(self.path, data)

    @property
    def kind(self) -> LabelKind:
        """The kind of the labels."""
        return self._header().kind

    def labels(self) -> Tensor:
        """As `LabelKind` says."""
        with safetensors.safe_open(self.path, "pt") as file:
            labels: Tensor = file.get_tensor("labels")
        return labels

    def rows(self, begin: int, end: int) -> Tensor:
        """Return logits minus each example's largest, float64 [n, k]. Multi-label logits and numbers are unchanged."""
        header = self._header()
        with safetensors.safe_open(self.path, "pt") as file:
            rows_nk: Tensor = file.get_slice("logits")[begin:end].to(torch.float64) * header.scale
            if header.kind == "numbers":
                rows_nk = rows_nk + file.get_slice("largest")[begin:end].to(torch.float64)[:, None]
        return rows_nk

    def _header(self) -> Header:
        with safetensors.safe_open(self.path, "pt") as file:
            header = parsed((file.metadata() or {})["soup"].encode())
            slices = {name: file.get_slice(name) for name in DTYPES}
            found = {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
        kind, scale = header["kind"], float(header["scale"])
        if header["schema"] != SCHEMA or not _fit(kind, found) or not 0 < scale < math.inf:
            raise ValueError(f"{self.path}: another schema")
        return Header(header["key"], kind, scale, header["depends"])


def _fit(kind: str, found: Mapping[str, tuple[str, list[int]]]) -> bool:
    """Whether dtypes and shapes are as `Collected.packed` makes them for this kind of labels."""
    if kind not in KINDS or any(found[name][0] not in known for name, known in DTYPES.items()):
        return False
    (logits, largest, labels) = (found[name][1] for name in DTYPES)
    columns = 2 if kind in ("several", "multilabel") else 1
    return len(logits) == 2 and largest == logits[:1] and labels[:1] == logits[:1] and len(labels) == columns


class LogitFolder:
    """A folder with a sub-folder for each set. `inputs` records what logits depend on besides their key."""

    def __init__(self, path: Path, *, inputs: Inputs | None = None) -> None:
        self.path = path
        self.inputs = inputs

    def file(self, source: LogitsSource) -> LogitFile:
        """Return the file of the logits of `source`."""
        set_folder = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in source.set_name)
        name = f"{source.hash.removeprefix('sha256:')[:16]}-{source.key[:16]}.safetensors"
        return LogitFile(self.path / (set_folder.lstrip(".") or "set") / name, source, self.inputs)
