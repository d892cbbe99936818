"""Plans which file of the soup's folder holds which tensors under which names: as in the ingredients, if all agree.

for plan in planned_files(mixture):
    plan.file, plan.names                              # "2_Dense/model.safetensors", {"2_Dense/w": "w"}
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import part_of
from soupcli.checkpoints.formats.folders.shards import whole_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.mixing.mixture import Mixture

DEFAULT = "model.safetensors"
SUFFIX = ".safetensors"
INDEX_SUFFIX = ".index.json"
# Names under which a library that wrote the first one looks for safetensors.
SAFE_NAMES = {
    "pytorch_model.bin": DEFAULT,
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
    "diffusion_pytorch_model.bin": "diffusion_pytorch_model.safetensors",
    "learned_embeds.bin": "learned_embeds.safetensors",
}
TORCH_NAMES = {safe: name for name, safe in SAFE_NAMES.items()}
NUMBERED = re.compile(r"(.*?)(_\d+)?(\.\w+)")  # Accelerate numbers the files of several networks


class FilePlan(NamedTuple):
    """Weights of one file, or of its shards if they are larger than a file may be."""

    file: str  # relative to the soup's folder
    names: Mapping[str, str]  # tensor -> its name in the file


def planned_files(mixture: Mixture) -> list[FilePlan]:
    """Return a plan for each network in the ingredients' folders."""
    kept = mixture.kept
    names = sorted(kept.tensors)
    if not kept.parts:
        return [FilePlan(_common_name(mixture), {name: name for name in names})]
    files = [_safe_name(part.file) for part in kept.parts]
    if len(set(files)) < len(files):  # several files of one folder, each of a name that no library looks for
        files = [str(PurePosixPath(part.file).with_suffix(SUFFIX)) for part in kept.parts]
    plans = []
    for part, file in zip(kept.parts, files, strict=True):
        own = [name for name in names if part_of(kept.parts, name)[0] == part]
        plans.append(FilePlan(file, {name: name.removeprefix(part.prefix) for name in own}))
    return plans


def _common_name(mixture: Mixture) -> str:
    """The name that the weights have in all ingredients, in safetensors; the usual one if they have several."""
    names = {_name_of(member) for member in (*mixture.members, mixture.kept)}
    return names.pop() if len(names) == 1 else DEFAULT


def _name_of(checkpoint: Checkpoint) -> str:
    if not checkpoint.files or not checkpoint.places:
        own = getattr(checkpoint, "checkpoint", None)  # some of whose tensors were taken from another one
        return _name_of(own) if own is not None else DEFAULT
    return _safe_name(whole_name(checkpoint.files[0].path.name))


def _safe_name(file: str) -> str:
    """The name of the same weights in safetensors: of an index, of the whole; the usual one for an unknown name."""
    folder, slash, name = file.removesuffix(INDEX_SUFFIX).rpartition("/")
    safe = name if name.endswith(SUFFIX) else _renamed(name, SAFE_NAMES) or DEFAULT
    return f"{folder}{slash}{safe}"


def torch_name(file: str) -> str:
    """The name of the same weights by torch.save: the one that the library looks for, else with its ending."""
    folder, slash, name = file.rpartition("/")
    return f"{folder}{slash}{_renamed(name, TORCH_NAMES) or name.removesuffix(SUFFIX) + '.bin'}"


def _renamed(name: str, names: Mapping[str, str]) -> str | None:
    """The name that a file has in `names`, with its number, or None: pytorch_model_1.bin is model_1.safetensors."""
    found = NUMBERED.fullmatch(name)
    if found is None or found[1] + found[3] not in names:
        return None
    other = PurePosixPath(names[found[1] + found[3]])
    return str(other.with_stem(f"{other.stem}{found[2] or ''}"))
