"""The files beside a checkpoint's weights that are compared with those of others: configuration, tokenizer, tokens.

compared_files(checkpoint)                              # {"config.json": Path(...), "1_Pooling/config.json": Path(...)}
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import remembered
from soupcli.checkpoints.formats.folders.folder import SIDE_FILES
from soupcli.checkpoints.shell_patterns import matches
from soupcli.checkpoints.side_files import files_beside

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

SCHEDULER = "scheduler_config.json"  # of diffusers: what a network was trained to predict, of how much noise
COLBERT = "artifact.metadata"  # of Stanford's ColBERT: all of its settings
# Settings of libraries, and their lists of a network's parts: sentence-transformers, diffusers, GLiNER, ...
CONFIGURATIONS = ("*_config.json", "config_*.json", "modules.json", "model_index.json", COLBERT)
# Settings of one run; those of adapters are compared by what they mean.
OF_RUNS = (
    "adapter_config.json",
    "ds_config*",
    *(f"*{word}*" for word in ("train", "deepspeed", "accelerate", "optim")),
)


def compared_files(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return the files by their labels: their paths below the folder that holds all of them.

    Files of sub-folders that a soup carries on are among them, such as those of the modules of sentence-transformers,
    and code that a configuration names. So are the configurations of libraries that are not among its own side files.
    """
    return dict(_files_of(checkpoint))


@remembered(2)  # the first checkpoint is compared with one after the other
def _files_of(checkpoint: Checkpoint) -> dict[str, Path]:
    own = checkpoint.side_files
    below = files_beside(checkpoint.side_folder, checkpoint.files).files
    others = {one.name: one.path for one in below if _is_compared(one.name)}
    return {label: file for label, file in others.items() if file not in own} | _labelled(own)


def _is_compared(name: str) -> bool:
    """Whether a file is the network's own code, a library's configuration, or one of settings in a sub-folder."""
    file = PurePosixPath(name).name
    configures = matches(file, CONFIGURATIONS) and not matches(file, OF_RUNS)
    return configures or name.endswith(".py") or ("/" in name and matches(file, SIDE_FILES))


def _labelled(files: Sequence[Path]) -> dict[str, Path]:
    """Return files by their paths below the folder that holds all of them."""
    if not files:
        return {}
    common = os.path.commonpath([os.path.abspath(file.parent) for file in files])  # noqa: PTH100 - links stay
    return {os.path.relpath(os.path.abspath(file), common): file for file in files}  # noqa: PTH100
