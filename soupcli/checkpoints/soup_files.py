"""The files of a soup: whole weights as safetensors, or an adapter where the ingredients are adapters."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from soupcli.checkpoints.adapter import CONFIG, WEIGHTS
from soupcli.checkpoints.adapter_soup import AdapterSoup, adapters_of
from soupcli.checkpoints.mixing import Mixture
from soupcli.checkpoints.writing import Written, write_weights, write_whole
from soupcli.progress import Progress, silent


class AdapterNotes(NamedTuple):
    """What became of the adapters."""

    rank: int  # of most layers
    relative_error: float  # 0 where the adapter is exact


def write_soup(
    mixture: Mixture,
    folder: Path,
    *,
    metadata: Mapping[str, str],
    max_shard_size: int,
    adapter_rank: int | None = None,
    overrides: Mapping[str, Tensor] | None = None,
    progress: Progress = silent,
) -> tuple[Written, AdapterNotes | None]:
    """Mixes `mixture` into files in `folder`, adapters into one of rank `adapter_rank` at most (None: exactly).

    Raises MixError where a tensor cannot be mixed and OutputError where the disk is full.
    """
    if not adapters_of(mixture):
        written = write_weights(
            mixture,
            folder,
            metadata=metadata,
            max_shard_size=max_shard_size,
            overrides=overrides,
            progress=progress,
        )
        return written, None
    soup = AdapterSoup.of(mixture, rank=adapter_rank)
    # PEFT reads one file of this name; as a mixture of one, its tensors are streamed like any others.
    written = write_weights(
        Mixture.uniform([soup]), folder, metadata=metadata, max_shard_size=sys.maxsize, progress=progress
    )
    (folder / written.files[0]).rename(folder / WEIGHTS[0])
    write_whole(folder / CONFIG, json.dumps(soup.config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    notes = AdapterNotes(soup.config["r"], soup.relative_error)
    return written._replace(files=[WEIGHTS[0], CONFIG]), notes
