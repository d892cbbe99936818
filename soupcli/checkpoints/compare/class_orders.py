"""The order of classes beside a checkpoint's weights, from every place and library that states it.

class_orders(checkpoint)                                # {"config.json: id2label": ["cat", "dog"]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from soupcli.checkpoints.formats.class_lists import (
    KEYS,
    PLACEHOLDER,
    is_class_list,
    named_rows,
    names_by_row,
    plain_name,
    rows_of_text,
)
from soupcli.files.json_text import parse_json
from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

MAX_BYTES = 4_000_000  # of a list of classes, or of config.json
MAX_SETTINGS = 200_000  # bytes of other files that are searched for classes
MAX_YAML = 65_536  # bytes: a thousand classes, as YOLO lists ImageNet's, take 45,000
CONFIG = "config.json"
YAML = (".yaml", ".yml")
DEEPEST = 30  # levels of YAML, whose reader would overflow the stack
SUFFIXES = (".json", *YAML, ".txt", ".names", ".csv", ".tsv")
INPUTS = ("tokenizer", "vocab", "special_tokens", "added_tokens")  # files whose names are tokens
SHOWN = 6  # class names in a message
# What says the order of a head's rows, the first that there is.
HEADS = ("config.json: id2label", "config.json: label2id", "config.json: label_names")


def class_orders(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return the names of classes in the order of the head's rows, by the place that states them."""
    found = {key: list(names) for key, names in checkpoint.origin.classes.items()}
    for file in _files(checkpoint):
        is_list = is_class_list(file.name)
        try:
            document = _read(file, MAX_BYTES if is_list or file.name == CONFIG else MAX_SETTINGS)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue  # whoever needs it says so
        of_file = names_by_row(document) if is_list or isinstance(document, Mapping) else None
        if of_file is not None:
            found.setdefault(file.name, of_file)
        for key, names in named_rows(document).items():
            found.setdefault(f"{file.name}: {key}", names)
    return found


def contradict(one: Sequence[str], two: Sequence[str]) -> bool:
    """Whether a name of `one` stands for another row in `two`. Case and separators do not count."""
    plain, others = ([plain_name(name) for name in names] for names in (one, two))
    known = set(others)
    return any(name != there and name in known for name, there in zip(plain, others, strict=False))


def other_classes(one: Sequence[str], two: Sequence[str]) -> bool:
    """Whether a row has two names. Placeholders name nothing, and `neg` is short for `negative`."""
    if any(all(map(PLACEHOLDER.fullmatch, names)) for names in (one, two)):
        return False
    pairs = [(plain_name(name), plain_name(there)) for name, there in zip(one, two, strict=False)]
    return not all(name.startswith(there) or there.startswith(name) for name, there in pairs)


def two_orders(config: dict[str, Sequence[str] | None]) -> str | None:
    """Return what `id2label` and `label2id` of one configuration say if they contradict each other."""
    one, two = config.get("id2label"), config.get("label2id")
    if one is None or two is None or not contradict(one, two):
        return None
    return f"two orders of its classes: id2label {shown(one)}; label2id {shown(two)}"


def shown(names: Sequence[str]) -> str:
    """Return the first names, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _files(checkpoint: Checkpoint) -> list[Path]:
    """Return side files, and others that may state classes whether or not a soup carries these on."""
    folder = checkpoint.side_folder
    try:
        found = {*checkpoint.side_files, *(folder.iterdir() if folder is not None else ())}
    except OSError:
        found = set(checkpoint.side_files)
    return sorted(file for file in found if file.suffix.lower() in SUFFIXES and not file.name.startswith(INPUTS))


def _read(file: Path, most: int) -> Any:
    """Return the document in a file, or None if it states no classes."""
    is_list = is_class_list(file.name)
    if file.suffix not in (".json", *YAML) and not is_list:
        return None
    content = read_small(file, most=MAX_YAML if file.suffix in YAML else most).decode("utf-8-sig")
    if file.suffix in YAML:
        return _of_yaml(content) if is_list or KEYS.search(content) else None
    return parse_json(content) if file.suffix == ".json" else rows_of_text(content)


def _of_yaml(content: str) -> Any:
    """Return the document with every scalar as text. Raises ValueError before it would recurse without end."""
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # joins no mappings
    depth = 0
    for event in yaml.parse(content, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
    return yaml.load(content, loader)
