"""The order of classes in the files beside a checkpoint, from every place and library that states it.

class_orders(checkpoint)                                # {"config.json: id2label": ["cat", "dog"]}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from soupcli.files.json_text import parse_json
from soupcli.files.reading import read_small

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

MAX_BYTES = 10_000_000
SUFFIXES = (".json", ".txt", ".names")
DEEPEST = 3  # levels of a configuration that are searched
MOST = 100_000  # classes
SHOWN = 6  # class names in a message
_MAPS = r"(id|idx|index)(2|_to_)(label|class)(es|s)?|(label|class)(es|s)?(2|_to_)(id|idx|index)"
KEYS = re.compile(rf"{_MAPS}|(label|class)_names|labels|classes")
LISTS = re.compile(rf"{_MAPS}|labels?([_-]?(names|map|list|encoder))?|class(es|[_-]?(names|map|list|indices))")
# What says the order of a head's rows, the first that there is.
HEADS = ("config.json: id2label", "config.json: label2id", "config.json: label_names")


def class_orders(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return the names of classes in the order of the head's rows, by the place that states them."""
    found: dict[str, list[str]] = {}
    for file in _files(checkpoint):
        is_list = is_class_list(file.name)
        if not is_list and file.name != "config.json":
            continue
        try:
            content = read_small(file, most=MAX_BYTES).decode("utf-8-sig")
            document: Any = parse_json(content) if file.suffix == ".json" else content.split("\n")
            document = [line.strip() for line in document if line.strip()] if file.suffix != ".json" else document
        except (OSError, ValueError, RecursionError):
            continue  # whoever needs it says so
        places = [("", document)] if is_list else []
        for key, value in (*places, *_places(document)):
            names = names_by_row(value)
            if names is not None:
                found.setdefault(f"{file.name}: {key}" if key else file.name, names)
    return found


def contradict(one: Sequence[str], two: Sequence[str]) -> bool:
    """Whether a name of `one` stands for another row in `two`. Case and separators do not count."""
    plain, others = ([plain_name(name) for name in names] for names in (one, two))
    return any(name != there and name in others for name, there in zip(plain, others, strict=False))


def two_orders(config: Mapping[str, Sequence[str] | None]) -> str | None:
    """Return what `id2label` and `label2id` of one configuration say if they contradict each other."""
    one, two = config.get("id2label"), config.get("label2id")
    if one is None or two is None or not contradict(one, two):
        return None
    return f"two orders of its classes: id2label {shown(one)}; label2id {shown(two)}"


def shown(names: Sequence[str]) -> str:
    """Return the first names, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def is_class_list(name: str) -> bool:
    """Whether a file of this name lists the classes of the network that it lies beside."""
    stem, _, suffix = name.rpartition(".")
    return f".{suffix}" in SUFFIXES and LISTS.fullmatch(stem.lower()) is not None


def _files(checkpoint: Checkpoint) -> list[Path]:
    """Yield the side files, and lists of classes beside them whether or not a soup carries these on."""
    folder = checkpoint.side_folder
    try:
        lists = [file for suffix in SUFFIXES for file in folder.glob(f"*{suffix}")] if folder is not None else []
    except OSError:
        lists = []
    return sorted({*checkpoint.side_files, *lists})


def _places(document: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield values under keys that hold names of classes, with dotted keys."""
    if not isinstance(document, Mapping) or depth == DEEPEST:
        return
    for key, value in document.items():
        if KEYS.fullmatch(str(key)):
            yield f"{prefix}{key}", value
        else:
            yield from _places(value, f"{prefix}{key}.", depth + 1)


def names_by_row(value: Any) -> list[str] | None:
    """Return names in order, from a list or from a map between numbers and names; None for anything else."""
    if isinstance(value, Mapping):
        pairs = [(number, name) for number, name in value.items() if _number(number) is not None]
        if len(pairs) < len(value) or not all(isinstance(name, str) for _, name in pairs):
            pairs = [(number, name) for name, number in value.items()]
        rows = {_number(number): name for number, name in pairs}
        if rows.keys() != set(range(len(value))):
            return None
        value = [rows[row] for row in range(len(rows))]
    whole = isinstance(value, list) and 1 < len(value) <= MOST and all(isinstance(name, str) for name in value)
    return list(value) if whole else None


def plain_name(name: str) -> str:
    """Return a name without case and separators."""
    return re.sub(r"[\W_]+", "", name).casefold() or name


def _number(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    return value if type(value) is int else None
