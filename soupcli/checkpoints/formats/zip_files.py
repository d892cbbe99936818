"""Zip archives that are not torch.save's: each is recognised by the names in it, and refused with the way out."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.shell_patterns import matches
from soupcli.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.files.reading import FileVersion


class Archive(NamedTuple):
    """A kind of archive."""

    member: str  # shell pattern of a name that only this kind has
    what: str
    hint: str
    is_export: bool = True  # whether it holds a network as another program runs it


ARCHIVES = (
    Archive(
        "*/constants.pkl",
        "a TorchScript archive, which is a program",
        "save its weights: torch.save(torch.jit.load(path).state_dict(), other_path)",
    ),
    Archive(
        "*/code/*.py",
        "a TorchScript archive, which is a program",
        "save its weights: torch.save(torch.jit.load(path).state_dict(), other_path)",
    ),
    Archive(
        "*/.data/extern_modules",
        "a torch.package archive, which holds code",
        "load it with torch.package.PackageImporter and save the weights: torch.save(model.state_dict(), path)",
    ),
    Archive(
        "*archive_format",
        "an exported program (torch.export)",
        "save its weights: torch.save(torch.export.load(path).state_dict, other_path)",
    ),
    Archive(
        "model.weights.h5",
        "a Keras model",
        "soup mixes weights of torch: keras.models.load_model reads it, with KERAS_BACKEND=torch it has a state_dict()",
    ),
    Archive(
        "_stable_baselines3_version",
        "an agent of stable-baselines3",
        "unpack it, its network and its settings are files in it: unzip RUN.zip -d RUN; a soup of these with --format "
        "same goes back by agent.policy.load_state_dict(torch.load('soup/policy.pth'))",
    ),
    Archive(
        "*.npy",
        "numpy arrays (.npz)",
        "save them as tensors: safetensors.numpy.save_file(dict(numpy.load(path)), 'model.safetensors')",
        is_export=False,
    ),
    Archive("*META-INF/*", "a Java archive", "--ckpts takes files of torch.save and safetensors", is_export=False),
    Archive("word/*", "a document", "--ckpts takes files of torch.save and safetensors", is_export=False),
)

MEMBERS = tuple(kind.member for kind in ARCHIVES)


def other_archive(names: Sequence[str]) -> Archive | None:
    """The kind of a zip archive that holds these names, None if it is not in ARCHIVES."""
    if not any(matches(name, MEMBERS) for name in names):
        return None
    return next((kind for kind in ARCHIVES if any(fnmatchcase(name, kind.member) for name in names)), None)


def refuse_other_archives(file: FileVersion, names: Sequence[str]) -> None:
    """Raises CheckpointError if the names in a zip archive are those of another kind than torch.save's."""
    kind = other_archive(names)
    if kind is not None:
        raise CheckpointError(f"{file.path}: {kind.what}", hint=kind.hint)
    if any(name.endswith("/.data/serialization_id") for name in names) and not any(
        name.endswith("/data.pkl") for name in names
    ):
        raise CheckpointError(
            f"{file.path}: a file of torch.save without its content: the program ended before it was written",
            hint="save it again, or take an earlier checkpoint",
        )
    if names and not any(name.endswith("data.pkl") or "/data/" in name for name in names):
        shown = ", ".join(sorted(names)[:3])
        raise CheckpointError(
            f"{file.path}: a zip archive of other things: {shown}", hint="if checkpoints are in it, unpack it: unzip"
        )
