"""Finds the file of a folder that holds its weights, and the files beside it that belong to the network."""

from __future__ import annotations

import json
import os
import re
from heapq import nsmallest
from pathlib import Path, PurePosixPath
from typing import Any

from soupcli.checkpoints.formats.folders import shards
from soupcli.checkpoints.formats.folders.own_names import refuse_parts
from soupcli.checkpoints.formats.foreign import refuse_slices
from soupcli.checkpoints.formats.other_files import refuse_other_file, refuse_other_folder, refuse_unknown_file
from soupcli.checkpoints.formats.table import holds_weights
from soupcli.checkpoints.formats.torch_archives import refuse_program
from soupcli.checkpoints.formats.torch_save import is_without_tensors
from soupcli.checkpoints.shell_patterns import matches
from soupcli.errors import CheckpointError
from soupcli.files.json_text import parse_json
from soupcli.files.reading import FileVersion, distinct
from soupcli.files.small_file import read_small, read_start
from soupcli.wording import natural_order

INDEX_SUFFIX = ".index.json"
# In the order in which transformers tries them, then open_clip's, then diffusers'.
KNOWN_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
)
MAX_CONFIG = 10_000_000  # bytes
MOST_BELOW = 8  # folders below one without weights that are called what they are
MAX_NAME = 4096
MOST_FILES = 5000  # with the names of weights, that are looked into
PREFERENCES = ("best", "last")  # words after --prefer
PREFERRED = ("model_best", "best", "last")  # names that a trainer gives in every folder
STATISTICS = ("policy_*processor_step_*.safetensors",)  # of the inputs and outputs of LeRobot's policies
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
    "train_state*",
    "latest_train_state*",
)
# Endings of files that are never weights, of which folders may hold thousands: not looked into.
OTHER_KINDS = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
    *(".csv", ".jsonl", ".log", ".md", ".parquet", ".py", ".pyc", ".sh", ".tsv", ".txt", ".yaml", ".yml"),
)
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")  # of files of weights, that are looked into
# Endings of files that a program has not finished, and of those that somebody has put aside.
ASIDE = re.compile(
    r"(\.(tmp\d*|temp|part|partial|incomplete|download|crdownload|bak|backup|old|orig|save|sw[a-p]|aria2)|~)$",
    re.IGNORECASE,
)
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "open_clip_config.json",
    "*processor_config.json",
    "tokenizer*",
    "*tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "*vocab*.json",
    "*vocab*.txt",
    "*.vocab",
    "tekken.json",
    "tokens.txt",
    "symbols.txt",
    "words.txt",
    "units.txt",
    "lexicon*.txt",
    "merges.txt",
    "*.bpe",
    "*.model",
    "*.tiktoken",
    "dict*.txt",
    "*.spm",
    "*.codes",
    "chat_template*",
)


def known_weights(folder: Path) -> Path | None:
    """Return the file with a name that model libraries look for, or None."""
    return next((folder / name for name in KNOWN_NAMES if (folder / name).is_file()), None)


def pointed_to(folder: Path) -> Path | None:
    """Return the folder that `folder` points to: a snapshot in the Hub's cache, or Megatron's last iteration.

    Raises CheckpointError if it holds several and does not say which.
    """
    snapshots = folder / "snapshots"
    if snapshots.is_dir() and (folder / "refs").is_dir():
        return _snapshot(folder, snapshots)
    iteration = _first_line(folder / "latest_checkpointed_iteration.txt")
    below = folder / (f"iter_{int(iteration):07d}" if iteration.isdecimal() else iteration)
    return below if iteration and below.is_dir() else None


def _snapshot(folder: Path, snapshots: Path) -> Path:
    names = sorted(entry.name for entry in snapshots.iterdir() if entry.is_dir())
    commit = _first_line(folder / "refs" / "main")
    if commit in names:
        return snapshots / commit
    if len(names) == 1:
        return snapshots / names[0]
    raise CheckpointError(
        f"{folder}: holds {len(names)} snapshots, and refs/main names {commit or 'none'}",
        hint=f"give one of them: --ckpts {snapshots}/{names[0]}" if names else "download it again",
    )


def _first_line(file: Path) -> str:
    """The first line of a short file, if it is a plain name; else nothing."""
    try:
        line = read_start(file, 256).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return line if re.fullmatch(r"[\w-][\w.-]*", line) else ""


def only_weights(folder: Path) -> Path | shards.ShardSet:
    """Returns the one file of the folder that holds weights, an index or any by its content, or shards without index.

    Names of one file count once. Raises CheckpointError if there is none, and if there are several.
    """
    found = weights_in(folder)
    refuse_slices(folder, [entry.name for entry in (*found, *(path for path in folder.iterdir() if path.is_dir()))])
    indexes = [entry for entry in found if shards.is_index_name(entry.name)]
    wholes = indexes or [entry for entry in found if not shards.is_shard(entry.name)]
    sets = [] if indexes else shards.shard_sets(folder, [entry.name for entry in found])
    files = distinct([FileVersion.of(entry) for entry in wholes])
    if len(files) + len(sets) == 1:
        if not sets:
            _refuse_aside(folder, files[0].path)
        return sets[0] if sets else files[0].path
    if not found:
        refuse_other_folder(folder)
        _refuse_other_files(folder)
        for below in sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=_order)[:MOST_BELOW]:
            refuse_other_folder(below)
        raise CheckpointError(f"{folder}: holds no checkpoint", hint=listing(folder))
    names = [entry.name for entry in wholes]
    if not sets:
        refuse_parts(folder, wholes)
    shown = [*names, *(shards.pattern for shards in sets)]
    raise CheckpointError(
        f"{folder}: holds {len(shown)} checkpoints: {', '.join(shown[:8])}{', ...' if len(shown) > 8 else ''}",
        hint=_pick_one(folder, names),
    )


def _refuse_aside(folder: Path, file: Path) -> None:
    """Raises CheckpointError if the only weights of a folder have the name of a file that is written or put aside."""
    if ASIDE.search(file.name):
        raise CheckpointError(
            f"{folder}: holds only {file.name}, by its name a file that is not yet written, or put aside",
            hint=f"give it another name, or name the file itself: --ckpts {file}",
        )


def _refuse_other_files(folder: Path) -> None:
    """Raises CheckpointError if a file of another program, that may be meant, can be called what it is."""
    for entry in sorted(folder.iterdir()):
        kind = entry.suffix.lower()
        if entry.is_file() and not entry.name.startswith(".") and kind not in OTHER_KINDS and kind != ".json":
            file = FileVersion.of(entry)
            if file.size or entry.name.lower().endswith(ENDINGS):
                refuse_other_file(file)
                refuse_program(file)
                refuse_unknown_file(file)


LAST = "last_checkpoint"  # detectron2's and mmengine's: the file that they resume from


def last_of_several(folder: Path) -> Path | None:
    """The file that `last_checkpoint` names, if the folder holds it and further ones; as the library would pick it."""
    try:
        name = PurePosixPath(read_small(folder / LAST, most=MAX_NAME).decode("utf-8", "replace").strip()).name
    except OSError:
        return None
    last = folder / name
    if not name or not is_weights(last):
        return None
    others = [entry for entry in folder.iterdir() if entry.name != name and is_weights(entry)]
    return last if others else None


def _pick_one(folder: Path, names: list[str]) -> str:
    if not names:
        return "these are shards of several checkpoints: move those of all but one out of the folder"
    said = [start for start in PREFERENCES if any(start in name.lower() for name in names)]
    if "last" not in said and any(re.search(r"\d", name.partition(".")[0]) for name in names if "*" not in name):
        said.append("last")  # the highest number is
    first = next((name for start in PREFERRED for name in names if name.startswith(start)), None)
    ways = [f"--prefer {' or '.join(said)}"] if said else []
    ways += [f"--weights-name {name}" for name in ([first] if first is not None else names[:3])]
    return f"pick one with {', or with '.join(ways)}, or give the files: --ckpts '{folder}/{_series(names)}'"


def _series(names: list[str]) -> str:
    """Return a pattern of the names that differ in numbers alone, e.g. of epochs without their average; "*" for all."""
    patterns = [re.sub(r"\d+", "*", name) for name in names]
    most = max(patterns, key=patterns.count)
    return most if patterns.count(most) > 1 else "*"


def _order(entry: Path) -> tuple[list[tuple[int, str]], str]:
    return natural_order(entry.name)


def weights_in(folder: Path) -> list[Path]:
    """Return the files of a folder that hold weights, in natural order. Those without a tensor come only alone.

    Raises CheckpointError if there are too many to look into.
    """
    names = os.listdir(folder)  # noqa: PTH208 - a Path for each of very many files takes long
    promising = [name for name in names if name.lower().endswith(ENDINGS) and not shards.is_shard(name)]
    if len(promising) > MOST_FILES:
        raise CheckpointError(
            f"{folder}: holds {len(promising)} files with names of weights, at most {MOST_FILES} are looked into",
            hint=f"move the checkpoints into a folder of their own, or give them: --ckpts '{folder}/FILES*'",
        )
    found = sorted(filter(is_weights, (folder / name for name in names if _may_be_weights(name))), key=_order)
    return list(filter(holds_tensors, found)) or found


def holds_tensors(entry: Path) -> bool:
    """Whether a file holds weights, and not only settings or counters that torch.save wrote."""
    return is_weights(entry) and not is_without_tensors(FileVersion.of(entry))


def is_weights(entry: Path) -> bool:
    """Whether a file holds weights, by name and content."""
    if not _may_be_weights(entry.name) or not entry.is_file():
        return False
    return shards.is_index(entry) if entry.suffix == ".json" else holds_weights(FileVersion.of(entry))


def _may_be_weights(name: str) -> bool:
    if name.startswith(".") or name.lower().endswith(OTHER_KINDS) or matches(name, TRAINER_STATE):
        return False
    return not name.endswith(".json") or shards.is_index_name(name)


def nearest_folder(absent: Path) -> str:
    """Return what the nearest folder above an absent path holds, as a hint."""
    folder = next((parent for parent in absent.parents if parent.is_dir()), Path())
    names = nsmallest(8, (entry.name for entry in folder.iterdir()), key=natural_order)
    return f"{folder} holds {', '.join(names) or 'nothing'}"


def listing(folder: Path) -> str:
    """Return the content of a folder, as a hint if it is no checkpoint."""
    found = {entry.parent for entry in folder.glob("*/*") if entry.name in KNOWN_NAMES}
    below = sorted((entry.name for entry in found), key=natural_order)
    if below and (len(below) == 1 or len({_architecture(entry) for entry in found}) > 1):
        several = "its sub-folders hold a network each" if len(below) > 1 else "its sub-folder does"
        return f"{several} ({', '.join(below[:3])}): --ckpts '{folder.parent}/*/{below[0]}'"
    if below:
        return f"its sub-folders do ({', '.join(below[:3])}): --ckpts '{folder}/*/'"
    names = nsmallest(8, (entry.name for entry in folder.iterdir()), key=natural_order)
    return f"it holds {', '.join(names)}" if names else "it is empty"


OF_AN_AVERAGE = {"decay", "optimization_step", "update_after_step"}  # diffusers' EMAModel adds them to config.json


def is_average(folder: Path) -> bool:
    """Whether the network in a folder is an average over the training that diffusers' EMAModel saved."""
    return read_config(folder).keys() >= OF_AN_AVERAGE


ARCHITECTURE = ("model_type", "architectures", "_class_name", "architecture", "model_cfg")  # keys of config.json


def _architecture(folder: Path) -> str:
    """Return what config.json says about the kind of network, or "" without one."""
    config = read_config(folder)
    return json.dumps([config.get(key) for key in ARCHITECTURE], sort_keys=True) if config else ""


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return the object in config.json or another file of the folder, or {} if it cannot be read."""
    try:
        config = parse_json(read_small(folder / name, most=MAX_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def side_files(folder: Path) -> tuple[Path, ...]:
    """Return the configuration and tokenizer files in the folder, sorted."""
    names = os.listdir(folder)  # noqa: PTH208 - a Path for each of very many files takes long
    named = (folder / name for name in names if matches(name, SIDE_FILES))
    return tuple(sorted(entry for entry in named if entry.is_file()))
