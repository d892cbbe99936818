"""Which file of a folder holds its weights, and which files beside it belong to the network."""

from __future__ import annotations

import json
import math
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from soupcli.checkpoints.formats import sharded
from soupcli.checkpoints.formats.table import holds_weights
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, distinct

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
    return holds_weights(file)


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


NAME = "trainer_state.json"
MAX_BYTES = 200_000_000
SPEEDS = ("_runtime", "_per_second", "_time", "_count")  # of the machine, not of the weights


def trainer_metrics(folder: Path) -> dict[str, float]:
    """The last evaluation at the checkpoint's own step, and the best metric of the run so far."""
    file = folder / NAME
    try:
        if file.stat().st_size > MAX_BYTES:
            return {}
        state: Any = json.loads(file.read_bytes())
        step, log = state["global_step"], state["log_history"]
        evaluated = [entry for entry in log if entry.get("step") == step and any(map(_is_metric, entry))]
        found = dict(evaluated[-1]) if evaluated else {}
        found = {name: value for name, value in found.items() if _is_metric(name)}
        found["best_metric"] = state.get("best_metric")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: float(value) for name, value in sorted(found.items()) if _is_number(value)}


def _is_metric(name: str) -> bool:
    return name.startswith("eval_") and not name.endswith(SPEEDS)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
