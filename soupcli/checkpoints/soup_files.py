"""The files of a soup: whole weights as safetensors, or an adapter where the ingredients are adapters."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from soupcli.checkpoints.adapter import CONFIG, WEIGHTS
from soupcli.checkpoints.adapter_soup import AdapterSoup, adapters_of
from soupcli.checkpoints.averaging import CPU
from soupcli.checkpoints.checkpoint import TensorSpec
from soupcli.checkpoints.mixing import Mixture
from soupcli.checkpoints.writing import Written, write_weights, write_whole
from soupcli.progress import Progress, silent


class AdapterNotes(NamedTuple):
    """What became of the adapters."""

    rank: int  # of most layers
    relative_error: float  # 0 where the adapter is exact


def soup_specs(mixture: Mixture) -> dict[str, TensorSpec]:
    """Shape and dtype of the tensors in the soup's files, before a lower rank is taken."""
    if adapters_of(mixture):
        return dict(AdapterSoup.of(mixture).tensors)
    return {name: mixture.spec(name) for name in mixture.kept.tensors}


def write_soup(
    mixture: Mixture,
    folder: Path,
    *,
    metadata: Mapping[str, str],
    max_shard_size: int,
    adapter_rank: int | None = None,
    final_metadata: Callable[[], Mapping[str, str]] | None = None,
    overrides: Mapping[str, Tensor] | None = None,
    device: torch.device = CPU,
    progress: Progress = silent,
) -> tuple[Written, AdapterNotes | None]:
    """Mixes `mixture` into files in `folder`, adapters into one of rank `adapter_rank` at most (None: exactly).

    See `write_weights`. Raises MixError where a tensor cannot be mixed and OutputError where the disk is full.
    """
    write = partial(
        write_weights, folder=folder, metadata=metadata, final_metadata=final_metadata, device=device, progress=progress
    )
    if not adapters_of(mixture):
        return write(mixture, max_shard_size=max_shard_size, overrides=overrides), None
    soup = AdapterSoup.of(mixture, rank=adapter_rank, progress=progress)
    # PEFT reads one file of this name; as a mixture of one, its tensors are streamed like any others.
    written = write(Mixture.uniform([soup]), max_shard_size=sys.maxsize)
    (folder / written.files[0]).rename(folder / WEIGHTS[0])
    write_whole(folder / CONFIG, json.dumps(soup.config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    notes = AdapterNotes(soup.config["r"], soup.relative_error)
    return written._replace(files=[WEIGHTS[0], CONFIG]), notes
