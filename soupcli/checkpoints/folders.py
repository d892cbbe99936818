"""Which file of a folder holds its weights, and which files beside it belong to the network."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from soupcli.checkpoints import safetensors_file, sharded, torch_file
from soupcli.checkpoints.duplicates import distinct
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
PREFERRED = ("model_best", "best", "last")  # names that a trainer gives in every folder
# What trainers leave beside the weights: never opened.
TRAINER_STATE = (
    "optimizer*",
    "scheduler*",
    "scaler*",
    "sampler*",
    "training_args.bin",
    "rng_state*",
    "random_states*",
    "custom_checkpoint_*",
    "dl_state_dict*",
)
# Endings of files that are never weights, of which folders may hold thousands: not looked into.
OTHER_KINDS = frozenset(
    {
        *(".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
        *(".csv", ".jsonl", ".log", ".md", ".parquet", ".py", ".pyc", ".sh", ".tsv", ".txt", ".yaml", ".yml"),
    }
)
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


def known_weights(folder: Path) -> Path | None:
    """The file with a name that model libraries look for, None where there is none."""
    return next((folder / name for name in KNOWN_NAMES if (folder / name).is_file()), None)


def only_weights(folder: Path) -> Path:
    """The one file of the folder that holds weights: an index, or a file by its content.

    Names of one file count once. Raises CheckpointError where there is none, and where there are several.
    """
    found = [entry for entry in sorted(folder.iterdir()) if _holds_weights(entry)]
    indexes = [entry for entry in found if entry.name.endswith(INDEX_SUFFIX)]
    files = distinct([FileVersion.of(entry) for entry in indexes or found])
    if len(files) == 1:
        return files[0].path
    if not files:
        raise CheckpointError(f"{folder}: holds no checkpoint", hint=listing(folder))
    names = [entry.name for entry in indexes or found]
    first = next((name for start in PREFERRED for name in names if name.startswith(start)), names[0])
    raise CheckpointError(
        f"{folder}: holds {len(names)} checkpoints: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}",
        hint=f"pick one with --weights-name {first}, or give the files: --ckpts '{folder}/*'",
    )


def _holds_weights(entry: Path) -> bool:
    name = entry.name
    if name.startswith(".") or entry.suffix.lower() in OTHER_KINDS or matches(name, TRAINER_STATE):
        return False
    if not entry.is_file():
        return False
    if entry.suffix == ".json":
        return name.endswith(INDEX_SUFFIX) and sharded.is_index(entry)
    file = FileVersion.of(entry)
    return safetensors_file.is_safetensors(file) or torch_file.holds_a_pickle(file)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether `name` fits one of the shell patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def listing(folder: Path) -> str:
    """What a folder holds, as a hint for someone who took it for a checkpoint."""
    below = sorted({entry.parent.name for entry in folder.glob("*/*") if entry.name in KNOWN_NAMES})
    if below:
        return f"its sub-folders do ({', '.join(below[:3])}): --ckpts '{folder}/*/'"
    names = sorted(entry.name for entry in folder.iterdir())
    return f"it holds {', '.join(names[:8])}" if names else "it is empty"


def side_files(folder: Path) -> tuple[Path, ...]:
    """Configuration and tokenizer files in the folder, sorted."""
    return tuple(sorted(entry for entry in folder.iterdir() if matches(entry.name, SIDE_FILES) and entry.is_file()))
