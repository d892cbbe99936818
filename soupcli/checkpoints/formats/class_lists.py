"""Names of classes in the order of a head's rows, as files and the entries of checkpoints state them.

named_rows({"meta": {"classes": ("cat", "dog")}})       # {"meta.classes": ["cat", "dog"]}
other_list("heads", ("cat", "dog"))                     # ["cat", "dog"]
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
    OF_DATA,
    OTHERS,
    SETTING,
    TOKEN_KEYS,
    TRAINED,
)
from soupcli.checkpoints.formats.name_lists import FEW, MOST, names_by_row, names_in_order, names_in_text
from soupcli.checkpoints.formats.numpy_names import NumbersIn, names_in
from soupcli.checkpoints.formats.pickles.config_objects import opened, opened_items
from soupcli.checkpoints.formats.python_settings import is_python, of_python
from soupcli.checkpoints.formats.text_documents import is_yaml, of_yaml
from soupcli.files.gzip_files import unpacked_name
from soupcli.files.json_text import parse_json
from soupcli.late import late_pattern

DEEPEST = 6  # levels that are searched: model.init_args.head.init_args.class_names of Lightning's config.yaml
MOST_LOOKED_AT, PER_LIST = 300_000, 10  # items of lists and maps: one that lies in many places counts in each
MOST_INSIDE = 64  # lists in a list
LONGEST = 4096  # characters of a line
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
    "xml",
    "properties",
    "env",
    "conf",
)
BINARY = ("npy", "npz", "pkl", "pickle", "joblib", "pt", "pth", "parquet")
OF_SETTINGS = ("ini", "cfg", "py", "gz")  # which are read whatever they are called
# Files that show classes, or are made of them: pictures, pages, logs, caches; and weights.
SHOWN = late_pattern(
    r"png|jpe?g|svg|gif|webp|bmp|tiff?|pdf|eps|html?|log|out|err|md|ipynb|cache|idx|lock|tmp|bak|swp|md5|sha256|zip|tar|tgz"
    r"|bin|safetensors|onnx|gguf|pyc"
)
CODE = late_pattern(r"c|cc|[ch]pp|h|m?js|ts|java|kt|swift|cs|go|rs|dart|rb|php|lua|m|r|jl|scala")
OF_EXAMPLES = ("labels", "label", "targets", "target", "tags")  # whose files in such forms mostly have one for each
_CAMEL = re.compile(r"(?<=[a-z]{2})(?=[A-Z])")
View = Callable[[Any], "Mapping[Any, Any] | None"]


Entries = Iterable[tuple[str, str, Any]]  # dotted places, keys and values


class Lists(NamedTuple):
    """The lists of names in a document, by the dotted keys that state them."""

    classes: dict[str, list[str]]
    others: dict[str, list[str]]
    inputs: dict[str, list[str]]


def lists_in(document: Any, view_of: View | None = None, numbers_in: NumbersIn = lambda _: None) -> Lists:
    """Return what `named_rows`, `other_lists` and `input_lists` do, from one pass.

    `view_of` returns the entries of a nested value, or None.
    """
    entries = list(_entries(document, view_of or _mapping, numbers_in))
    return Lists(_classes(entries), _others(entries), _inputs(entries))


def named_rows(document: Any, named: str = "") -> dict[str, list[str]]:
    """Return the names of classes in a document that is called `named`, by the dotted key that states them."""
    return _classes(_entries(document, _mapping), named)


def other_lists(document: Any, named: str = "") -> dict[str, list[str]]:
    """Return the lists of different names in a document that may be those of a head's rows, by their dotted keys.

    They count as such only if another document has the same names in another order. `named` is what it is called.
    """
    return _others(_entries(document, _mapping), named)


def input_lists(document: Any) -> dict[str, list[str]]:
    """Return the lists of a network's inputs in a document, such as the columns of a table, by their dotted keys."""
    return _inputs(_entries(document, _mapping))


def _classes(entries: Entries, named: str = "") -> dict[str, list[str]]:
    listed = ((place, value) for place, key, value in entries if KEYS.fullmatch(_key_of_all(place, key, named)))
    found = {place: names_by_row(value) for place, value in listed}
    return {place: names for place, names in found.items() if names is not None and not _is_by_merit(place)}


def _others(entries: Entries, named: str = "") -> dict[str, list[str]]:
    found = {place: other_list(_key_of_all(place, key, named), value) for place, key, value in entries}
    return {place: names for place, names in found.items() if names is not None and not _is_by_merit(place)}


def _is_by_merit(place: str) -> bool:
    return any(map(BY_MERIT.fullmatch, place.split(".")))


def _key_of_all(place: str, key: str, named: str) -> str:
    """Return the key of a list, or what lists of each part of the data lie below, of that which is trained on."""
    above = place.removesuffix(key).rstrip(".").rpartition(".")[2] or named
    return above if TRAINED.fullmatch(key) and LISTS.fullmatch(above) else key


def _inputs(entries: Entries) -> dict[str, list[str]]:
    found = {place: names_in_order(value) for place, key, value in entries if INPUTS.fullmatch(key)}
    return {place: names for place, names in found.items() if names is not None}


def other_list(key: str, value: Any) -> list[str] | None:
    """Return different names in order, or None if the key or the names are those of something else than classes."""
    is_list = LISTS.fullmatch(key) is not None or EMBEDDED_LISTS.fullmatch(key) is not None
    numbers_tokens = isinstance(value, Mapping) and TOKEN_KEYS.fullmatch(key)
    is_other = (OTHERS.fullmatch(key) and not numbers_tokens) or BY_MERIT.fullmatch(key)
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


def _entries(document: Any, view_of: View, numbers_in: NumbersIn = lambda _: None) -> Iterator[tuple[str, str, Any]]:
    """Yield the dotted place of each list, map and object, its key and its value, the upper ones first."""
    whole = opened(document)
    waiting, seen, looked_at = deque([("", 1, view_of(whole) or _listed_inside(whole))]), 0, 0
    while waiting and seen < MOST:
        prefix, depth, view = waiting.popleft()
        seen += len(view or ())
        for key, held in (view or {}).items():
            value = opened_items(_without_wrapper(held))
            if isinstance(value, str) and _are_letters(str(key), value):
                yield f"{prefix}{key}", str(key), list(value)
            elif isinstance(value, str) and any(words.fullmatch(str(key)) for words in (LISTS, EMBEDDED_LISTS, INPUTS)):
                listed = names_in_text(f"{prefix}{key}", value)
                yield f"{prefix}{key}", str(key), listed
                if listed is not None:
                    continue
            if value is None or (isinstance(value, str | int | float) and not is_document(value)):
                continue
            below = view_of(value)
            looked_at += PER_LIST + len(value if below is None and isinstance(value, list | tuple) else below or ())
            if looked_at > MOST_LOOKED_AT:
                return
            read = numbers_in if any(words.fullmatch(str(key)) for words in NUMBERED) else None
            yield f"{prefix}{key}", str(key), names_in(below or value, read)
            inner = below or _listed_inside(value)
            depth_inside = 1 if isinstance(value, str) and is_python(value) else depth + 1
            if inner and depth_inside <= DEEPEST:
                waiting.append((f"{prefix}{key}.", depth_inside, inner))


NUMBERED = (KEYS, LISTS, EMBEDDED_LISTS, INPUTS, TOKEN_KEYS, TRAINED)  # whose numbers may be tensors


def _without_wrapper(value: Any) -> Any:
    """Return what Weights & Biases keep as `{"desc": null, "value": ...}`."""
    return value["value"] if isinstance(value, Mapping) and value.keys() == {"desc", "value"} else value


def _listed_inside(value: Any) -> Mapping[Any, Any] | None:
    """Return the lists or maps in a list by their places, such as the classes of each of several tasks."""
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_INSIDE or names_by_row(value) is not None:
        return None
    inside = {str(place): each for place, each in enumerate(value) if isinstance(each, Mapping | list | tuple)}
    return inside if len(inside) == len(value) else None


def is_document(value: Any) -> bool:
    """Whether a value is a text that may be JSON, YAML, or settings in Python."""
    return isinstance(value, str) and (value.startswith("{") or is_yaml(value) or is_python(value))


def entries_of_text(text: bytes | str) -> Mapping[Any, Any] | None:
    """Return the entries of a JSON document, or of settings in YAML or Python, or None for any other text."""
    try:
        if isinstance(text, str) and is_python(text):
            return of_python(text)
        return _mapping(of_yaml(text)) if isinstance(text, str) and is_yaml(text) else entries_of_json(text)
    except (ValueError, RecursionError):
        return None


def entries_in(value: Any) -> Mapping[Any, Any] | None:
    """Return the entries of a map, or of a text that is a document; None for anything else."""
    return entries_of_text(value) if is_document(value) else _mapping(value)


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


def is_class_list(name: str) -> bool:
    """Whether a file of this name lists the classes of the network that it lies beside."""
    name = unpacked_name(name)
    stem, _, ending = name.rpartition(".") if "." in name else (name, "", "")
    named = ending == "names" or (ending.lower() in (*ENDINGS, *BINARY) and _lists_classes(stem))
    return named and BY_MERIT.fullmatch(stem) is None


def is_unread_list(name: str) -> bool:
    """Whether a file of this name lists classes in a form that is not read."""
    stem, _, ending = name.rpartition(".")
    ending = ending.lower()
    if not stem or SHOWN.fullmatch(ending) or ending in (*ENDINGS, *BINARY, *OF_SETTINGS):
        return False
    listed = _lists_classes(stem) and (CODE.fullmatch(ending) is not None or stem.lower() not in OF_EXAMPLES)
    return listed and BY_MERIT.fullmatch(stem) is None


def _lists_classes(stem: str) -> bool:
    return LISTS.fullmatch(stem) is not None or _of_known_data(stem)


def _of_known_data(stem: str) -> bool:
    """Whether a name is that of a list of classes with what it is of behind it, such as `places365`."""
    first, _, data = stem.rpartition("_")
    return OF_DATA.fullmatch(data) is not None and LISTS.fullmatch(first) is not None


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
