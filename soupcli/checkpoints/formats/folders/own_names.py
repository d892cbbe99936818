"""Names of tensors in files of one folder. If no two files share a name, they are no checkpoints of one network.

refuse_parts(Path("run"), [Path("run/part_a.safetensors"), Path("run/part_b.safetensors")])  # raises CheckpointError
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.checkpoints.contents import How
from soupcli.checkpoints.formats.names import plain_names
from soupcli.checkpoints.formats.table import read_contents
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOST = 8  # files that are opened to tell parts from checkpoints of one network


def names_of(file: FileVersion) -> frozenset[str] | None:
    """Return the names of a file's tensors, without wrappers' prefixes; None for one that holds no network."""
    try:
        return frozenset(plain_names(read_contents(file, How()).specs).values())
    except CheckpointError:
        return None


def refuse_parts(folder: Path, files: Sequence[Path]) -> None:
    """Raise CheckpointError if each of several files holds tensors of its own. Of many the first are looked at."""
    seen: set[str] = set()
    for file in files[:MOST]:
        names = names_of(FileVersion.of(file))
        if not names or not seen.isdisjoint(names):
            return
        seen |= names
    if len(files) < 2:
        return
    named = [file.name for file in files]
    shown = f"{len(named)} files with other tensors each, {', '.join(named[:3])}{', ...' if len(named) > 3 else ''}"
    raise CheckpointError(
        f"{folder}: holds {shown}, and nothing says how they belong together",
        hint="if they are parts of one network, write all tensors into one model.safetensors in its own folder "
        "(load_file and save_file of safetensors.torch); if one of them is the network, name it: --weights-name "
        + " or ".join(named[:3]),
    )
