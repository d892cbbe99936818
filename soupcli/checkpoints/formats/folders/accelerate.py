"""Accelerate's folders of several networks: its `save_state` numbers the files of all but the first.

networks_of(Path("checkpoint_0"))                      # [model.safetensors, model_1.safetensors]; [] of one network
"""

from __future__ import annotations

from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.formats.folders.neighbours import OF_FSDP
from soupcli.checkpoints.formats.folders.torch_distributed import METADATA
from soupcli.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = "Accelerate"
# In the order in which `load_state` looks for them; the last one is FSDP's.
NAMES = ("model{}.safetensors", "pytorch_model{}.bin", "pytorch_model_fsdp{}.bin")
CUT = "pytorch_model_fsdp_{}"  # the folder of a network that FSDP has cut
# Beside the networks of a training, and of a soup. Without them, the numbers may be of checkpoints of one network.
SIGNS = ("random_states_*.pkl", "soup.json")


def networks_of(folder: Path) -> list[Path]:
    """Return the files of the networks in a folder of several, else nothing.

    Raises CheckpointError if each network is a distributed checkpoint.
    """
    if (folder / CUT.format(1) / METADATA).is_file():
        raise CheckpointError(
            f"{folder}: holds several networks, each a distributed checkpoint: {CUT.format(0)}, {CUT.format(1)}, ...",
            hint=f"mix each by itself: --ckpts '{folder.parent}/*/{CUT.format(0)}'",
        )
    if not any(any(folder.glob(sign)) for sign in SIGNS):
        return []
    found = list(takewhile(Path.is_file, (_file_of(folder, number) for number in count())))
    return found if len(found) > 1 else []


def format_of(files: Sequence[Path]) -> str:
    """Return the name of the format of these networks."""
    return OF_FSDP if any(file.name.startswith("pytorch_model_fsdp") for file in files) else FORMAT


def _file_of(folder: Path, number: int) -> Path:
    """Return the file of a network, which may be absent."""
    files = [folder / name.format(f"_{number}" if number else "") for name in NAMES]
    return next(filter(Path.is_file, files), files[0])
