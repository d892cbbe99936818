"""Recognises libraries whose files of weights do not name them by the settings that they write beside these.

    writer_of(Path("exp/epoch_12.pt"))                     # "wenet", if exp/train.yaml or exp/epoch_12.yaml is there

These libraries open only files of torch.save, so their soups are written as such.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

OF_FSDP = "Accelerate FSDP"


class Neighbours(NamedTuple):
    """Names of a library's checkpoints, and of settings beside them, one of which is there; `{stem}` is the file's."""

    writer: str
    names: re.Pattern[str]
    settings: tuple[str, ...]


WRITERS = (
    Neighbours("catalyst", re.compile(r"model\.(best|last|\d+)\.pth"), ("model.storage.json",)),
    Neighbours("GluonTS", re.compile(r"prediction-net-state\.pt"), ("gluonts-config.json",)),
    Neighbours("RLlib", re.compile(r"module_state\.pkl"), ("class_and_ctor_args.pkl",)),
    Neighbours(OF_FSDP, re.compile(r"pytorch_model_fsdp(_\d+)?\.bin"), ("{stem}.bin",)),  # by its own name
    Neighbours("wenet", re.compile(r"(epoch_|step_|avg_?|final|init).*\.pt"), ("train.yaml", "{stem}.yaml")),
    Neighbours("LitGPT", re.compile(r"lit_model(\..+)?\.pth"), ("model_config.yaml", "lit_config.json")),
    Neighbours("MONAI", re.compile(r"model\.pt"), ("../configs/metadata.json",)),
    Neighbours("OLMo", re.compile(r"model\.pt"), ("train.pt",)),
    Neighbours("ESPnet", re.compile(r"(\d+epoch|(train|valid)\..+)\.pth"), ("config.yaml",)),
)


def writer_of(file: Path) -> str | None:
    """Return the library that wrote a file of weights, or None if it is unknown."""
    for writer, names, settings in WRITERS:
        if names.fullmatch(file.name) and any(_is_beside(file, name) for name in settings):
            return writer
    return None


def _is_beside(file: Path, name: str) -> bool:
    return (file.parent / name.format(stem=file.stem)).is_file()
