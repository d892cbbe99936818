"""The order of classes beside a checkpoint's weights, from every place and library that states it.

class_orders(checkpoint)                                # {"config.json: id2label": ["cat", "dog"]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.checkpoint import remembered
from soupcli.checkpoints.compare.class_files import files_of
from soupcli.checkpoints.compare.documents import LINES, document_of, is_settings_text
from soupcli.checkpoints.formats.class_lists import (
    are_settings,
    is_class_list,
    named_rows,
    other_list,
    other_lists,
    plain_name,
)
from soupcli.checkpoints.formats.class_words import BY_MERIT, OF_TRAINING, OTHERS, PLACEHOLDER
from soupcli.checkpoints.formats.name_lists import names_by_row
from soupcli.files.small_file import same_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

SHOWN = 6  # class names in a message
LONGEST = 100  # letters of one
# What says the order of a head's rows, the first that there is.
HEADS = ("config.json: id2label", "config.json: label2id", "config.json: label_names")


@remembered(2)  # the first checkpoint is compared with one after the other
def class_orders(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return the names of classes in the order of the head's rows, by the place that states them.

    A list of which most names stand several times is one of examples: ImageNet has a few names twice.
    """
    found = {key: list(names) for key, names in checkpoint.origin.classes.items()}
    for label, file in files_of(checkpoint).items():
        is_list = is_class_list(file.name)
        if file.suffix.lower() in LINES and not is_list and not is_settings_text(file.name):
            continue
        document = document_of(file)
        # A list of ids is of examples, a map from names to ids numbers rows: of speakers, languages.
        is_other = OTHERS.fullmatch(file.stem) is not None and not file.stem.lower().endswith("ids")
        maps_names = isinstance(document, Mapping) and not is_other and not BY_MERIT.fullmatch(file.stem)
        of_file = names_by_row(_only_part(document) if is_list else document) if is_list or maps_names else None
        if of_file is not None and (is_list or not are_settings(of_file)):
            found.setdefault(label, of_file)
        for key, names in named_rows(document, file.stem).items():
            found.setdefault(f"{label}: {key}", names)
    return {place: names for place, names in found.items() if 2 * len({*names}) > len(names)}


def _only_part(document: Any) -> Any:
    """Return what a map of one entry holds, such as the element at the top of XML; anything else as it is."""
    only = next(iter(document.values())) if isinstance(document, Mapping) and len(document) == 1 else None
    return only if isinstance(only, list | Mapping) else document


def shared_lists(one: Checkpoint, two: Checkpoint) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the lists of different names that both have, whatever they are called, with the place of both.

    Those that equal files hold are left out.
    """
    for place, names in one.origin.lists.items():
        if place in two.origin.lists:
            yield place, list(names), list(two.origin.lists[place])
    beside = files_of(two)
    for label, file in files_of(one).items():
        other = beside.get(label)
        if other is None or same_bytes(file, other):
            continue
        lists, others = (_lists_in(each) for each in (file, other))
        yield from ((f"{label}{key}", names, others[key]) for key, names in lists.items() if key in others)


def are_moved(checkpoint: Checkpoint, names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two lists hold the same names in another order, and not those of parts of the checkpoint."""
    if names == others or sorted(names) != sorted(others):
        return False
    parts = {part for name in checkpoint.tensors for part in name.split(".")}
    return not parts.issuperset(part for name in names for part in name.split("."))


def other_lists_of(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return lists of different names, whatever they are called, by the place that states them."""
    found = {key: list(names) for key, names in checkpoint.origin.lists.items()}
    for label, file in files_of(checkpoint).items():
        found |= {f"{label}{key}": names for key, names in _lists_in(file).items()}
    return found


def _lists_in(file: Path) -> dict[str, list[str]]:
    """Return the lists of different names in a file by what follows the file's name in a message."""
    if OF_TRAINING.fullmatch(file.stem) is not None:
        return {}
    document = document_of(file)
    found = {f": {key}": names for key, names in other_lists(document, file.stem).items()}
    whole = other_list(file.stem, document)
    return {"": whole, **found} if whole is not None else found


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
    return f"two orders of its classes: id2label {shown(one, two)}; label2id {shown(two, one)}"


def shown(names: Sequence[str], other: Sequence[str]) -> str:
    """Return the first names, for a message, or those from the first row on that has another name in the other list."""
    first = next((row for row, pair in enumerate(zip(names, other, strict=False)) if pair[0] != pair[1]), 0)
    start = first if first >= SHOWN else 0
    some = [name if len(name) <= LONGEST else f"{name[:LONGEST]}..." for name in names[start : start + SHOWN]]
    numbered = [f"{row}: {name}" for row, name in enumerate(some, start)] if start else some
    return ("..., " if start else "") + ", ".join(numbered) + (", ..." if len(names) > start + SHOWN else "")
