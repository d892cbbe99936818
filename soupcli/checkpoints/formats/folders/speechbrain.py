"""speechbrain's folders: a file `NAME.ckpt` for each thing that its Checkpointer recovers, networks among them.

found = contents_of(Path("save/CKPT+2024-01-01"))
found.networks                                         # [encoder.ckpt, decoder.ckpt]: all of them are mixed
found.training, found.others                           # [optimizer.ckpt], [counter.ckpt, normalizer.ckpt]
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from soupcli.checkpoints.formats.pickles.stand_ins import find_in
from soupcli.checkpoints.formats.pickles.tensors import is_tensor
from soupcli.checkpoints.formats.saved_parts import view_of
from soupcli.checkpoints.formats.torch_archives import holds_a_pickle, is_torch_file, read_object
from soupcli.checkpoints.formats.training_state import NAMES, is_optimizer
from soupcli.files.reading import FileVersion

FORMAT = "speechbrain"
# Of a training's checkpoint, and of a model that its from_hparams opens.
MARKERS = ("CKPT.yaml", "hyperparams.yaml")
ENDING = ".ckpt"


class Recoverables(NamedTuple):
    """The files of a folder by what they hold."""

    networks: list[Path]
    training: list[Path]  # optimizers and the like
    others: list[Path]  # counters, schedulers, texts: whatever has no tensors


def contents_of(folder: Path) -> Recoverables:
    """Return the content of a folder of speechbrain's, empty for other folders. Raises CheckpointError if broken."""
    found = Recoverables([], [], [])
    if not any((folder / name).is_file() for name in MARKERS):
        return found
    for file in sorted(file for file in folder.iterdir() if file.suffix == ENDING and file.is_file()):
        _list_of(file, found).append(file)
    return found


def _list_of(file: Path, found: Recoverables) -> list[Path]:
    version = FileVersion.of(file)
    if not (is_torch_file(version) and holds_a_pickle(version)):
        return found.others
    content = read_object(version).content
    if is_optimizer(content):
        return found.training
    if view_of(content) is None or next(find_in(content, is_tensor), None) is None:
        return found.others
    return found.training if NAMES.fullmatch(file.stem) else found.networks
