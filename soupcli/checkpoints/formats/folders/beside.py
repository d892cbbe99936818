"""Files of weights that lie beside those of a network in its folder: heads of it, other forms, or strangers.

    writer, files = heads_beside(Path("bge-m3"))             # "FlagEmbedding", [colbert_linear.pt, sparse_linear.pt]
    others = look_beside(Path("run"), checkpoint)            # ["last.pt"]: named, and not mixed

A file of weights is mixed, named or refused: it is never dropped in silence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.adapters.adapter import WEIGHTS
from soupcli.checkpoints.formats.folders.folder import (
    ENDINGS,
    KNOWN_NAMES,
    MOST_FILES,
    STATISTICS,
    holds_tensors,
    read_config,
)
from soupcli.checkpoints.formats.folders.own_names import names_of
from soupcli.checkpoints.formats.folders.shards import is_shard
from soupcli.checkpoints.formats.other_files import refuse_pointer
from soupcli.checkpoints.shell_patterns import matches
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, same_file
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

# Networks whose heads lie in files of their own beside a body with a known name -> what writes them.
HEADS = {frozenset({"colbert_linear.pt", "sparse_linear.pt"}): "FlagEmbedding"}
# Adapters of a Wav2Vec2 for a language each (MMS), which transformers' load_adapter puts into the network: of two files
# for one language it takes the first kind. The key of config.json says that the network has places for them.
OF_LANGUAGES, PLACES, MMS = ("adapter.*.safetensors", "adapter.*.bin"), "adapter_attn_dim", "MMS"
# Heads in pickles that hold whole objects of other libraries, and the file beside that tells of them.
PICKLED_HEADS = {"model_head.pkl": "config_setfit.json"}
# The same weights in another form, under names of their own.
OTHER_NAMES = ("consolidated*", "*_ema.*", "*.ema.*", "ema_*")


def heads_beside(folder: Path) -> tuple[str, list[Path]] | None:
    """Return the library whose heads are in their own files beside a body, and these files; None without any."""
    for names, writer in HEADS.items():
        if all((folder / name).is_file() for name in names):
            return writer, [folder / name for name in sorted(names)]
    entries = os.listdir(folder)  # noqa: PTH208 - a Path for each of very many files takes long
    by_kind = [[name for name in entries if matches(name, (kind,))] for kind in OF_LANGUAGES]
    adapters = {Path(name).stem: folder / name for named in reversed(by_kind) for name in sorted(named)}
    if adapters and read_config(folder).get(PLACES) is not None:
        return MMS, [adapters[language] for language in sorted(adapters)]
    return None


def look_beside(folder: Path, checkpoint: Checkpoint) -> list[str]:
    """Return the files in `folder` that hold the network of `checkpoint` in another form, or further checkpoints of it.

    Raises CheckpointError if one holds other weights whose role is unknown.
    """
    taken = checkpoint.files
    name = taken[0].path.name if taken else ""
    for head, sign in PICKLED_HEADS.items():
        if (folder / head).is_file() and (folder / sign).is_file():
            raise CheckpointError(
                f"{folder}: its head lies in {head}, a pickle of whole objects, which is not mixed",
                hint=f"--weights-name {name} mixes the body alone: fit the head again on the soup",
            )
    known = {*KNOWN_NAMES, *WEIGHTS}
    stems = {file.path.stem for file in taken}
    others: list[str] = []
    names = os.listdir(folder)  # noqa: PTH208 - a Path for each of very many files takes long
    named = [one for one in names if one.lower().endswith(ENDINGS) and one not in known and not is_shard(one)]
    if len(named) > MOST_FILES:
        raise CheckpointError(
            f"{folder}: holds {len(named)} files with names of weights, at most {MOST_FILES} are looked into",
            hint=f"--weights-name {name} mixes that file alone, and leaves them out",
        )
    for entry in (folder / one for one in sorted(named, key=natural_order) if not matches(one, STATISTICS)):
        refuse_pointer(entry)
        if not holds_tensors(entry) or any(same_file(FileVersion.of(entry), file) for file in taken):
            continue
        other_form = matches(entry.name, OTHER_NAMES) or (matches(entry.name, OF_LANGUAGES) and entry.stem in stems)
        if not other_form and not _shares_names(FileVersion.of(entry), checkpoint):
            raise CheckpointError(
                f"{folder}: holds weights in {entry.name} beside {name}, and nothing says how they belong together",
                hint=f"--weights-name {name} mixes that file alone, and leaves {entry.name} out",
            )
        others.append(entry.name)
    return others


def parts_beside(folder: Path, checkpoint: Checkpoint) -> list[str]:
    """Return the files in `folder` that hold none of the checkpoint's tensors: other parts of the network, or heads.

    They are left out by a user who names one file. Of very many files none is looked at.
    """
    taken = {file.path.name for file in checkpoint.files}
    names = [one for one in sorted(os.listdir(folder), key=natural_order) if one.lower().endswith(ENDINGS)]  # noqa: PTH208
    files = [folder / one for one in names if one not in taken and not matches(one, (*STATISTICS, *OTHER_NAMES))]
    held = [one for one in files if holds_tensors(one)] if len(files) <= MOST_FILES else []
    return [one.name for one in held if not _shares_names(FileVersion.of(one), checkpoint)]


def _shares_names(file: FileVersion, checkpoint: Checkpoint) -> bool:
    """Whether a file holds tensors of a checkpoint's names. One that holds no network shares whatever is asked for."""
    names = names_of(file)
    return names is None or not checkpoint.tensors.keys().isdisjoint(names)
