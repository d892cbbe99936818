"""The formats of single files, each recognised by its first bytes. A new format is one file and one row here."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.formats import nemo, numpy_pickle, safetensors, torch_archives, torch_save
from soupcli.checkpoints.formats.other_files import refuse_other_file, refuse_unknown_file
from soupcli.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    from soupcli.checkpoints.contents import Contents, How
    from soupcli.files.reading import FileVersion


LONGEST_NAME = 1000  # letters of a tensor's


class FileFormat(NamedTuple):
    """One way to store named tensors in a file."""

    name: str  # as a user knows it
    begins: Callable[[FileVersion], bool]  # whether the file begins as files of this format do
    read_header: Callable[[FileVersion, How], Contents]
    holds_weights: Callable[[FileVersion], bool]  # the same, but sure enough to pick the file out of a folder


FORMATS: tuple[FileFormat, ...] = (
    FileFormat("torch.save", torch_archives.is_torch_file, torch_save.read_contents, torch_save.holds_weights),
    FileFormat("NeMo", nemo.is_nemo, nemo.read_contents, nemo.is_nemo),
    FileFormat("safetensors", safetensors.is_safetensors, safetensors.read_contents, safetensors.is_safetensors),
    FileFormat(numpy_pickle.FORMAT, numpy_pickle.begins, numpy_pickle.read_contents, numpy_pickle.holds_arrays),
)


def read_contents(file: FileVersion, how: How) -> Contents:
    """Returns specs and places of the tensors in `file`. Raises CheckpointError if no format reads it."""
    found = next((each for each in FORMATS if each.begins(file)), None)
    if found is None or found.name != "NeMo":  # a tar archive of another kind is not one of ours
        refuse_other_file(file)
    if found is None:
        refuse_unknown_file(file)
        raise CheckpointError(
            f"{file.path}: not a checkpoint: none of {', '.join(each.name for each in FORMATS)}",
            hint="--ckpts takes checkpoint files and folders that hold one",
        )
    contents = found.read_header(file, how)
    longest = max(contents.specs, key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise CheckpointError(
            f"{file.path}: tensor '{longest[:40]}...' has a name of {len(longest)} letters, "
            f"at most {LONGEST_NAME} are read",
            hint="no library gives such names: who wrote this file?",
        )
    return contents


@lru_cache(maxsize=8192)  # of a folder of many, each is asked for several times
def holds_weights(file: FileVersion) -> bool:
    """Whether `file` is of one of the formats."""
    return any(each.holds_weights(file) for each in FORMATS)
