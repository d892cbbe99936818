"""Folders that hold several networks, and what else lies below a checkpoint.

    folders = part_folders(Path("encoder"))                  # ["2_Dense"], of a sentence-transformers folder
    whole = joined(Path("encoder"), "sentence-transformers", [(part_in("", top), top), (part_in("2_Dense", two), two)])
    left_out = look_below(Path("run"), checkpoint, open_checkpoint)

A sub-folder that holds weights is a part of the network, a further checkpoint of it, or refused: it is never dropped
in silence.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.adapters.adapter import CONFIG, WEIGHTS
from soupcli.checkpoints.checkpoint import Component, StoredCheckpoint
from soupcli.checkpoints.formats.folders.folder import ENDINGS, INDEX_SUFFIX, KNOWN_NAMES, holds_tensors, read_config
from soupcli.checkpoints.formats.folders.shards import is_shard, whole_name
from soupcli.errors import CheckpointError
from soupcli.files.small_file import read_start
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint

# Files that list the parts of a folder -> what writes them.
MARKERS = {"modules.json": "sentence-transformers", "model_index.json": "diffusers pipeline"}
PIPELINE, CONFIGURATION = "model_index.json", "config.json"
DEEPEST = 3  # sub-folders of sub-folders
MOST_FOLDERS = 10_000  # sub-folders that are looked into
MOST_NETWORKS = 200  # of these, that hold weights
# Sub-folders that trainers make for each step or epoch: further checkpoints, not parts of this one.
STEPS = re.compile(r"(checkpoint|ckpt|epoch|step|global_step|iter|CKPT)[-_=+]?\d.*", re.IGNORECASE)
CARD, MAX_CARD = "README.md", 10_000
OF_PEFT = re.compile(rb"^library_name:\s*peft\s*$", re.MULTILINE)
# Sub-folders in which the same weights lie in the form of another program.
OTHER_FORMS = frozenset({"onnx", "openvino", "original", "gguf", "tf", "flax", "coreml", "mlx", "tensorrt"})


def marker(folder: Path) -> str | None:
    """The file that lists the parts of `folder`, if there is one."""
    return next((name for name in MARKERS if (folder / name).is_file()), None)


def part_folders(folder: Path) -> list[str]:
    """Sub-folders, relative to `folder`, that hold weights, if a file in it says that it has parts."""
    if marker(folder) is None:
        return []
    return [below for below in weights_below(folder)[0] if marker(folder / below) is None]


def lacking(folder: Path) -> list[str]:
    """Return the components that diffusers' model_index.json names, and that are not there or have no weights.

    A scheduler, a tokenizer and the like have settings alone, and none of these in `config.json`.
    """
    named = read_config(folder, PIPELINE)
    components = {name for name, value in named.items() if isinstance(value, list) and None not in value[:2] and value}
    below = {name: folder / name for name in sorted(components) if not name.startswith("_")}
    return [name for name, at in below.items() if not at.is_dir() or ((at / CONFIGURATION).is_file() and _is_bare(at))]


def _is_bare(folder: Path) -> bool:
    names = _names_in(folder)
    return not _hold_weights(folder, names) and not any(is_shard(name) for name in names)


def has_network_at_top(folder: Path) -> bool:
    """Whether a folder of several networks holds one in itself; diffusers does not look at files there."""
    return marker(folder) == "modules.json" and _holds_weights(folder)


def refuse_half(file: Path) -> None:
    """Raises CheckpointError if `file` is the network at the top of a folder that holds several."""
    if file.name in KNOWN_NAMES and part_folders(file.parent) and has_network_at_top(file.parent):
        raise CheckpointError(
            f"{file}: one network of several in its folder, by {marker(file.parent)}",
            hint=f"give the folder: --ckpts {file.parent}",
        )


def weights_below(folder: Path) -> tuple[list[str], list[str]]:
    """Sub-folders that hold weights, and those that by their names hold further checkpoints or other forms.

    Raises CheckpointError if there are too many to look into.
    """
    found: list[str] = []
    others: list[str] = []
    seen = {os.path.realpath(folder)}
    todo = [(folder, "")]
    while todo:
        at, name = todo.pop()
        for entry in sorted(_folders(at), key=lambda entry: natural_order(entry.name), reverse=True):
            below = f"{name}{entry.name}"
            if STEPS.fullmatch(entry.name) or entry.name.lower() in OTHER_FORMS:
                others.append(below)
            elif (real := os.path.realpath(entry)) not in seen:
                seen.add(real)
                _check_count(folder, "sub-folders", len(seen), MOST_FOLDERS)
                names = _names_in(entry)
                marked = any(one in names for one in MARKERS) and marker(entry) is not None
                if names and below.count("/") + 1 < DEEPEST and not marked:
                    todo.append((entry, f"{below}/"))
                if _hold_weights(entry, names) or (marked and part_folders(entry)):
                    found.append(below)
                    _check_count(folder, "sub-folders with weights", len(found), MOST_NETWORKS)
    return sorted(found, key=natural_order), sorted(others, key=natural_order)


def _check_count(folder: Path, noun: str, count: int, most: int) -> None:
    if count > most:
        raise CheckpointError(
            f"{folder}: has more than {most} {noun}, which are not looked into",
            hint=f"give the files of weights: --ckpts '{folder.parent}/*/FILE'",
        )


def _folders(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []  # it cannot be listed: whoever wants something in it says so


def _holds_weights(folder: Path) -> bool:
    return _hold_weights(folder, _names_in(folder))


def _names_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - a Path for each of very many files takes long
    except OSError:
        return set()


def _hold_weights(folder: Path, names: Iterable[str]) -> bool:
    known = {*KNOWN_NAMES, *WEIGHTS}
    named = (folder / name for name in names if name in known or name.lower().endswith(ENDINGS))
    return any((entry.name in known or holds_tensors(entry)) and entry.is_file() for entry in named)


def joined(folder: Path, format_: str, networks: Sequence[tuple[Component, Checkpoint]]) -> StoredCheckpoint:
    """One checkpoint of several networks, each a part of what `folder` holds.

    Raises CheckpointError if one of them is an adapter or a distributed checkpoint.
    """
    whole = StoredCheckpoint(folder, {}, {}, (), side_folder=folder)
    for part, network in networks:
        if not isinstance(network, StoredCheckpoint):
            raise CheckpointError(
                f"{folder}: {part.prefix or 'its top'} holds {network.origin.format} beside other networks",
                hint="merge an adapter into its base (merge_and_unload), and save the whole folder again",
            )
        whole = replace(
            whole,
            tensors={**whole.tensors, **{part.prefix + name: spec for name, spec in network.tensors.items()}},
            places={**whole.places, **{part.prefix + name: place for name, place in network.places.items()}},
            files=(*whole.files, *network.files),
            side_files=(*whole.side_files, *network.side_files),
        )
    parts, (first, *_) = tuple(part for part, _ in networks), [network for _, network in networks]
    return replace(whole, origin=first.origin._replace(format=format_, key=None), parts=parts)


def part_in(below: str, network: Checkpoint) -> Component:
    """The part that a network in the sub-folder `below` is; "" is the folder itself."""
    prefix = f"{below}/" if below else ""
    return Component(prefix, prefix + _file_name(network))


def _file_name(network: Checkpoint) -> str:
    """The name of the file that holds a network's weights, or of the index if there are several."""
    name = network.files[0].path.name
    return name if len(network.files) == 1 else whole_name(name) + INDEX_SUFFIX


def look_below(folder: Path, checkpoint: Checkpoint, open_network: Callable[[Path], Checkpoint]) -> list[str]:
    """Sub-folders that hold further checkpoints of the network in `folder`, or its weights in other forms.

    Raises CheckpointError if one holds other weights, and nothing says that they belong to the network.
    """
    found, others = weights_below(folder)
    parts = tuple(part.file for part in checkpoint.parts)
    inside = {os.path.realpath(file.path.parent) for file in checkpoint.files}
    found, others = (
        [one for one in names if os.path.realpath(folder / one) not in inside] for names in (found, others)
    )
    for below in found:
        if any(part.startswith(f"{below}/") for part in parts):
            continue
        if not _is_another(folder / below, checkpoint, open_network):
            raise CheckpointError(
                f"{folder}: holds weights in its sub-folder {below} too, and nothing says how they belong together",
                hint=_one_of_them(folder, below, checkpoint),
            )
        others.append(below)
    return others


def _is_another(folder: Path, checkpoint: Checkpoint, open_network: Callable[[Path], Checkpoint]) -> bool:
    """Whether a folder holds a checkpoint of the same network: the same names."""
    try:
        other = open_network(folder)
    except CheckpointError:
        return False
    return not checkpoint.is_adapter and set(other.tensors) == set(checkpoint.tensors)


def _one_of_them(folder: Path, below: str, checkpoint: Checkpoint) -> str:
    runs = folder.parent / "*"
    return f"mix one of them: --ckpts '{runs}/{below}', or --ckpts '{runs}/{checkpoint.files[0].path.name}'"


def named_adapters(folder: Path) -> list[Path]:
    """Sub-folders that hold an adapter: PEFT saves one there that has a name of its own."""
    return [
        below
        for below in sorted(_folders(folder))
        if (below / CONFIG).is_file() and any((below / name).is_file() for name in WEIGHTS)
    ]


def is_saved_by_peft(folder: Path) -> bool:
    """Whether PEFT saved a network with several adapters here: a model card of its own lies beside them.

    A Trainer writes one beside its checkpoints too, whose folders are named by steps.
    """
    try:
        card = read_start(folder / CARD, MAX_CARD)
    except OSError:
        return False
    return OF_PEFT.search(card) is not None and not any(STEPS.fullmatch(one.name) for one in named_adapters(folder))
