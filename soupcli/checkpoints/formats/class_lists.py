"""Names of classes in the order of a head's rows, as files and the entries of checkpoints state them.

named_rows({"meta": {"classes": ("cat", "dog")}})       # {"meta.classes": ["cat", "dog"]}
names_by_row({"1": "dog", "0": "cat"})                  # ["cat", "dog"]
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from soupcli.checkpoints.formats.class_words import (
    BEGIN_SETTINGS,
    BY_MERIT,
    EMBEDDED_LISTS,
    INPUTS,
    KEYS,
    LETTERS,
    LISTS,
    NO_CLASS,
    OBJECT_NAME,
    OBJECT_NUMBER,
    OTHERS,
    SETTING,
)
from soupcli.checkpoints.formats.numpy_names import names_in
from soupcli.checkpoints.formats.pickles.config_objects import opened, opened_items
from soupcli.checkpoints.formats.python_settings import is_python, of_python
from soupcli.files.json_text import parse_json

DEEPEST = 4  # levels that are searched: MONAI's network_data_format.outputs.pred.channel_def
MOST = 100_000  # classes, and entries that are searched
FEW = 4  # settings that may count from 0 by chance, such as a fold and a seed
MOST_LOOKED_AT, PER_LIST = 300_000, 10  # items of lists and maps: one that lies in many places counts in each
MOST_INSIDE = 64  # lists in a list
LONGEST = 4096  # characters of a line
MOST_CHARACTERS = 4_000_000  # of all names of a list
FEWEST_LETTERS, LONGEST_JSON = 20, 1 << 25  # of JSON in a text, such as a whole tokenizer
# Speechbrain's lists of classes are texts that end in .ckpt.
ENDINGS = (
    "",
    "ckpt",
    "dat",
    "json",
    "jsonl",
    "yaml",
    "yml",
    "toml",
    "txt",
    "names",
    "csv",
    "tsv",
    "lst",
    "list",
    "pbtxt",
)
BINARY = ("npy", "pkl", "pickle", "joblib", "pt", "pth")
_CAMEL = re.compile(r"(?<=[a-z]{2})(?=[A-Z])")
WNID = re.compile(r"(n\d{8})\b.*")  # `n01440764 tench, Tinca tinca`: the name in front counts
View = Callable[[Any], "Mapping[Any, Any] | None"]


Entries = Iterable[tuple[str, str, Any]]  # dotted places, keys and values


class Lists(NamedTuple):
    """The lists of names in a document, by the dotted keys that state them."""

    classes: dict[str, list[str]]
    others: dict[str, list[str]]
    inputs: dict[str, list[str]]


def lists_in(document: Any, view_of: View | None = None) -> Lists:
    """Return what `named_rows`, `other_lists` and `input_lists` do, from one pass.

    `view_of` returns the entries of a nested value, or None.
    """
    entries = list(_entries(document, view_of or _mapping))
    return Lists(_classes(entries), _others(entries), _inputs(entries))


def named_rows(document: Any) -> dict[str, list[str]]:
    """Return the names of classes in a document, by the dotted key that states them."""
    return _classes(_entries(document, _mapping))


def other_lists(document: Any) -> dict[str, list[str]]:
    """Return the lists of different names in a document that may be those of a head's rows, by their dotted keys.

    They count as such only if another document has the same names in another order.
    """
    return _others(_entries(document, _mapping))


def input_lists(document: Any) -> dict[str, list[str]]:
    """Return the lists of a network's inputs in a document, such as the columns of a table, by their dotted keys."""
    return _inputs(_entries(document, _mapping))


def _classes(entries: Entries) -> dict[str, list[str]]:
    found = {place: names_by_row(value) for place, key, value in entries if KEYS.fullmatch(key)}
    return {place: names for place, names in found.items() if names is not None}


def _others(entries: Entries) -> dict[str, list[str]]:
    found = {place: other_list(key, value) for place, key, value in entries}
    return {place: names for place, names in found.items() if names is not None}


def _inputs(entries: Entries) -> dict[str, list[str]]:
    found = {place: names_in_order(value) for place, key, value in entries if INPUTS.fullmatch(key)}
    return {place: names for place, names in found.items() if names is not None}


def other_list(key: str, value: Any) -> list[str] | None:
    """Return different names in order, or None if the key or the names are those of something else than classes."""
    is_list = LISTS.fullmatch(key) is not None or EMBEDDED_LISTS.fullmatch(key) is not None
    is_other = OTHERS.fullmatch(key) or BY_MERIT.fullmatch(key)
    names = None if is_other else names_in_order(value, least=1 if is_list else FEW)
    if names is None or all(map(NO_CLASS.fullmatch, names)) or (not is_list and are_settings(names)):
        return None
    return names


def are_settings(names: Sequence[str]) -> bool:
    """Whether more than half of the names are those of settings or measures of a training: `seed`, `best_epoch`."""
    return sum(map(_is_setting, names)) * 2 > len(names)


def _is_setting(name: str) -> bool:
    words = [word for word in re.split(r"[_\W]+", _CAMEL.sub("_", name).casefold()) if word]
    words = [word for word in words if not word.isdecimal()]
    return bool(words) and (all(map(SETTING.fullmatch, words)) or (len(words) > 1 and words[0] in BEGIN_SETTINGS))


def _entries(document: Any, view_of: View) -> Iterator[tuple[str, str, Any]]:
    """Yield the dotted place of each list, map and object, its key and its value, the upper ones first."""
    waiting, seen, looked_at = deque([("", 1, view_of(opened(document)))]), 0, 0
    while waiting and seen < MOST:
        prefix, depth, view = waiting.popleft()
        seen += len(view or ())
        for key, held in (view or {}).items():
            value = opened_items(held)
            if isinstance(value, str) and _are_letters(str(key), value):
                yield f"{prefix}{key}", str(key), list(value)
            elif isinstance(value, str) and "," in value and LISTS.fullmatch(str(key)):
                yield f"{prefix}{key}", str(key), [name.strip() for name in value.split(",")]
            if value is None or (isinstance(value, str | int | float) and not is_document(value)):
                continue
            below = view_of(value)
            looked_at += PER_LIST + len(value if below is None and isinstance(value, list | tuple) else below or ())
            if looked_at > MOST_LOOKED_AT:
                return
            yield f"{prefix}{key}", str(key), names_in(below or value)
            inner = below or _listed_inside(value)
            depth_inside = 1 if isinstance(value, str) and is_python(value) else depth + 1
            if inner and depth_inside <= DEEPEST:
                waiting.append((f"{prefix}{key}.", depth_inside, inner))


def _listed_inside(value: Any) -> Mapping[Any, Any] | None:
    """Return the lists or maps in a list by their places, such as the classes of each of several tasks."""
    if not isinstance(value, list | tuple) or not 1 < len(value) <= MOST_INSIDE or names_by_row(value) is not None:
        return None
    inside = {str(place): each for place, each in enumerate(value) if isinstance(each, Mapping | list | tuple)}
    return inside if len(inside) == len(value) else None


def is_document(value: Any) -> bool:
    """Whether a value is a text that may be JSON, or settings in Python."""
    return isinstance(value, str) and (value.startswith("{") or is_python(value))


def entries_of_text(text: bytes | str) -> Mapping[Any, Any] | None:
    """Return the entries of a JSON document or of settings in Python, or None for any other text."""
    if isinstance(text, str) and is_python(text):
        try:
            return of_python(text)
        except ValueError:
            return None
    return entries_of_json(text)


def entries_of_json(text: bytes | str) -> Mapping[Any, Any] | None:
    """Return the entries of a JSON document, of a whole tokenizer only its model's; None for any other text."""
    if not FEWEST_LETTERS <= len(text) <= LONGEST_JSON:
        return None
    try:
        document = parse_json(text, most=MOST_LOOKED_AT)
    except (ValueError, RecursionError):
        return None
    model = document.get("model") if isinstance(document, dict) else None
    return model if isinstance(model, dict) and "vocab" in model else _mapping(document)


def _are_letters(key: str, value: str) -> bool:
    """Whether a text is a vocabulary, each of its letters a token."""
    named = LETTERS.fullmatch(key) is not None or key == "labels"  # of deepspeech.pytorch
    return named and FEW <= len(value) == len(set(value)) <= MOST


def names_in_order(value: Any, *, least: int = FEW) -> list[str] | None:
    """Return different names in order, from a list or a map that counts them from 0 or 1; None for anything else.

    A map from names to numbers has at `least` so many.
    """
    if isinstance(value, Mapping):
        first = next(iter(value.items()), ())
        if not 1 < len(value) <= MOST or all(_row(one) is None for one in first):
            return None
        numbers, others = ([_row(one) for one in side] for side in (value.keys(), value.values()))
        by, texts = (numbers, value.values()) if None not in numbers else (others, value.keys())
        known = [number for number in by if number is not None]
        counted = set(known) in (set(range(len(value))), set(range(1, len(value) + 1)))
        if not counted or (by is others and len(value) < least):
            return None  # numbers of something else, such as a seed and a number of epochs
        value = [text for _, text in sorted(zip(known, texts, strict=True), key=lambda pair: pair[0])]
    names = names_by_row(value) if isinstance(value, list | tuple) else None
    return names if names is not None and len(set(names)) == len(names) else None


def names_by_row(value: Any) -> list[str] | None:
    """Return names in order, from a list or from a map between numbers and names; None for anything else."""
    if not isinstance(value, Mapping | list | tuple) or not 1 < len(value) <= MOST:
        return None
    is_map = isinstance(value, Mapping)
    if isinstance(value, Mapping):
        pairs = [(number, name) for number, name in value.items() if _row(number) is not None]
        if len(pairs) < len(value) or not all(isinstance(name, str | list) for _, name in pairs):
            pairs = [(number, name) for name, number in value.items()]
        rows = {_row(number): name for number, name in pairs}
        if rows.keys() != set(range(len(value))):
            return None
        value = [rows[row] for row in range(len(rows))]
    elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):  # COCO's categories
        value = _of_objects(value)
    names = [name[0] if (is_map and isinstance(name, list) and name) or _is_of_keras(name) else name for name in value]
    are_names = all(isinstance(name, str) for name in names) and sum(map(len, names)) <= MOST_CHARACTERS
    return names if are_names else None


def _of_objects(entries: Sequence[Mapping[Any, Any]]) -> list[Any]:
    """Return the names in objects, in the order of their numbers if they have any; [None] of other numbers."""
    first = [key for key in entries[0] if isinstance(key, str)]
    name, number = (next(filter(words.fullmatch, first), None) for words in (OBJECT_NAME, OBJECT_NUMBER))
    rows = {_row(entry.get(number, row)): entry.get(name) for row, entry in enumerate(entries)}
    begins = next((at for at in (0, 1) if rows.keys() == set(range(at, at + len(entries)))), None)
    return [rows[at + begins] for at in range(len(rows))] if begins is not None else [None]


def _is_of_keras(name: Any) -> bool:
    """Whether it is a class of Keras's list of ImageNet: `["n01440764", "tench"]`."""
    return isinstance(name, list) and len(name) == 2 and isinstance(name[0], str) and bool(WNID.fullmatch(name[0]))


def is_class_list(name: str) -> bool:
    """Whether a file of this name lists the classes of the network that it lies beside."""
    stem, _, ending = name.rpartition(".") if "." in name else (name, "", "")
    named = ending == "names" or (ending.lower() in (*ENDINGS, *BINARY) and LISTS.fullmatch(stem) is not None)
    return named and BY_MERIT.fullmatch(stem) is None


def is_embedded_list(name: str) -> bool:
    """Whether a file of this name numbers what an embedding has rows for, such as Coqui's speakers.pth and spk2id."""
    stem, _, ending = name.rpartition(".") if "." in name else (name, "", "")
    return ending.lower() in (*ENDINGS, *BINARY) and EMBEDDED_LISTS.fullmatch(stem) is not None


SEPARATORS = re.compile(r"[\W_]+")


@lru_cache(maxsize=1 << 16)  # the lists of all checkpoints have the same names
def plain_name(name: str) -> str:
    """Return a name without case and separators."""
    return SEPARATORS.sub("", name).casefold() or name


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    return value if isinstance(value, Mapping) else None


def _row(value: Any) -> int | None:
    if isinstance(value, str) and len(value) < 10 and value.isascii() and value.isdigit():
        return int(value)
    return value if type(value) is int else None
