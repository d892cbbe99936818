"""From a path to a checkpoint: the layout is recognised by content, and headers alone are read.

A folder is opened as its library would open it: model.safetensors, its index, pytorch_model.bin, its index; else the
one weights file that it holds.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from soupcli.checkpoints import safetensors_file, sharded, torch_file
from soupcli.checkpoints.checkpoint import StoredCheckpoint, StoredTensor, TensorSpec
from soupcli.checkpoints.files import FileVersion
from soupcli.errors import CheckpointError

INDEX_SUFFIX = ".index.json"
# In the order in which transformers tries them, then open_clip's.
KNOWN_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
WEIGHTS = ("*.safetensors", "*.pt", "*.pth", "*.bin", "*.pth.tar", "*.ckpt", f"*{INDEX_SUFFIX}")
# What a trainer leaves beside the weights: never opened.
TRAINER_STATE = ("optimizer.*", "scheduler.*", "scaler.*", "training_args.bin", "rng_state*", "random_states*")
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "open_clip_config.json",
    "*processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
)


def open_checkpoint(path: Path, *, weights_name: str | None = None) -> StoredCheckpoint:
    """The checkpoint at `path`, a file or folder, by its headers.

    `weights_name` picks the file where a folder holds several. Raises CheckpointError where nothing there can be
    read, naming what was found.
    """
    if path.is_dir():
        weights = path / weights_name if weights_name else _weights_file(path)
        if not weights.is_file():
            raise CheckpointError(f"{path}: has no file {weights_name}", hint=_listing(path))
        return _open_file(path, weights, _side_files(path))
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    beside = _side_files(path.parent) if path.name in KNOWN_NAMES else ()
    return _open_file(path, path, beside)


def _weights_file(folder: Path) -> Path:
    for name in KNOWN_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_file() and _matches(entry.name, WEIGHTS) and not _matches(entry.name, TRAINER_STATE)
    )
    indexes = [name for name in found if name.endswith(INDEX_SUFFIX)]
    if len(indexes or found) == 1:
        return folder / (indexes or found)[0]
    if not found:
        raise CheckpointError(f"{folder}: holds no checkpoint", hint=_listing(folder))
    raise CheckpointError(
        f"{folder}: holds {len(found)} checkpoints: {', '.join(found[:8])}",
        hint=f"pick one with --weights-name {found[0]}, or give the files: --ckpts '{folder}/*'",
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _listing(folder: Path) -> str:
    below = sorted(entry.parent.name for entry in folder.glob("*/*") if entry.name in KNOWN_NAMES)
    if below:
        return f"its sub-folders do ({', '.join(below[:3])}): --ckpts '{folder}/*/'"
    names = sorted(entry.name for entry in folder.iterdir())
    return f"it holds {', '.join(names[:8])}" if names else "it is empty"


def _side_files(folder: Path) -> tuple[Path, ...]:
    named = (entry for entry in folder.iterdir() if _matches(entry.name, SIDE_FILES) and entry.is_file())
    return tuple(sorted(named))


def _open_file(path: Path, weights: Path, side_files: tuple[Path, ...]) -> StoredCheckpoint:
    if weights.name.endswith(INDEX_SUFFIX):
        (specs, places), shards = sharded.read_index(weights, _contents)
        return StoredCheckpoint(path, specs, places, shards, side_files)
    file = FileVersion.of(weights)
    specs, places = _contents(file)
    return StoredCheckpoint(path, specs, places, (file,), side_files)


def _contents(file: FileVersion) -> tuple[dict[str, TensorSpec], dict[str, StoredTensor]]:
    if torch_file.is_torch_file(file):
        return torch_file.read_header(file)
    if safetensors_file.is_safetensors(file):
        specs, places, _ = safetensors_file.read_header(file)
        return specs, places
    raise CheckpointError(
        f"{file.path}: not a checkpoint: neither safetensors nor written by torch.save",
        hint="--ckpts takes checkpoint files and folders that hold one",
    )
