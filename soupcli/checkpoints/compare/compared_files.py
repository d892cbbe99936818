"""The files beside a checkpoint's weights that are compared with those of others: configuration, tokenizer, tokens.

compared_files(checkpoint)                              # {"config.json": Path(...), "1_Pooling/config.json": Path(...)}
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.formats.folders.folder import SIDE_FILES
from soupcli.checkpoints.shell_patterns import matches
from soupcli.checkpoints.side_files import files_beside

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

SCHEDULER = "scheduler_config.json"  # of diffusers: what a network was trained to predict, of how much noise


def compared_files(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return the files by their labels: their paths below the folder that holds all of them.

    Files of sub-folders that a soup carries on are among them, such as those of the modules of sentence-transformers,
    and code that a configuration names.
    """
    one: Any = checkpoint  # each is equal to itself alone
    return dict(_files_of(one))


@lru_cache(maxsize=2)  # of the first checkpoint, which is compared with one after the other
def _files_of(checkpoint: Any) -> dict[str, Path]:
    own: Sequence[Path] = checkpoint.side_files
    below = files_beside(checkpoint.side_folder, checkpoint.files).files
    others = {one.name: one.path for one in below if _is_compared(one.name)}
    return {label: file for label, file in others.items() if file not in own} | _labelled(own)


def _is_compared(name: str) -> bool:
    """Whether a file is the network's own code, or one of settings in a sub-folder: others are `own` ones."""
    own = name.endswith(".py") or PurePosixPath(name).name == SCHEDULER
    return own or ("/" in name and matches(PurePosixPath(name).name, SIDE_FILES))


def _labelled(files: Sequence[Path]) -> dict[str, Path]:
    """Return files by their paths below the folder that holds all of them."""
    if not files:
        return {}
    common = os.path.commonpath([os.path.abspath(file.parent) for file in files])  # noqa: PTH100 - links stay
    return {os.path.relpath(os.path.abspath(file), common): file for file in files}  # noqa: PTH100
