"""Files that another file names: an index its shards, a distributed checkpoint its parts. They must lie beside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from soupcli.checkpoints.files import FileVersion
from soupcli.errors import CheckpointError

LONGEST_NAME = 255  # of a file, on every usual file system


def file_beside(naming: Path, name: str) -> FileVersion:
    """The file `name`, which the file `naming` names, in the same folder.

    Raises CheckpointError where it is missing, where the name is a path, and where it is a link out of the folder.
    """
    if (
        len(name) > LONGEST_NAME
        or PurePosixPath(name).name != name
        or "\\" in name
        or name in ("", ".", "..")
        or "\0" in name
    ):
        raise CheckpointError(
            f"{naming}: names {name!r}, which is not a file name", hint="the files that it names lie beside it"
        )
    path = naming.parent / name
    if not path.is_file():
        raise CheckpointError(f"{naming}: names the file {name}, which is not there", hint="copy the missing file")
    if path.is_symlink():
        folder, target = path.parent.resolve(), path.resolve()
        if not target.is_relative_to(folder) and not _in_hub_cache(folder, target):
            raise CheckpointError(
                f"{path}: is a link out of its folder, to {target}",
                hint=f"if these weights are meant, copy them, or give the folder {target.parent}",
            )
    return FileVersion.of(path)


def _in_hub_cache(folder: Path, target: Path) -> bool:
    """Whether the link is one of the Hugging Face cache: snapshots/REVISION/NAME -> blobs/HASH of one repository."""
    return folder.parent.name == "snapshots" and target.parent == folder.parent.parent / "blobs"
