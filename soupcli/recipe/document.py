"""Reads YAML with the position of each key and value. Doubled keys are refused, and 1e-3 is a number.

Only plain data is allowed: no tags, and no anchors, which could build objects or multiply data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from soupcli.errors import RecipeError
from soupcli.files.small_file import read_small

MAX_BYTES = 1_000_000  # a recipe is written by hand
MAX_DEPTH = 40
MOST_EVENTS = 40_000  # keys, values, and beginnings and ends of mappings and lists
MOST_DIGITS = 400  # a longer number is text, which no key takes

Keys = tuple[int | str, ...]


@dataclass
class Document:
    """A recipe before validation, with the position of each part.

    `outside`: top keys given by a flag or variable, where paths are not the file's. `problems`: lines of what is wrong
    already. `unused`: lines on settings of the file that a flag leaves without use.
    """

    file: Path | None = None
    data: dict[str, Any] = field(default_factory=dict)
    values: dict[Keys, str] = field(default_factory=dict)  # "soup.yaml:8:10" of the value
    keys: dict[Keys, str] = field(default_factory=dict)  # "soup.yaml:8:3" of the key
    outside: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def position(self, keys: Keys, *, of_key: bool = False) -> str:
        """Return the position of `keys`. An absent key has that of the nearest mapping around it."""
        table = self.keys if of_key else self.values
        for end in range(len(keys), -1, -1):
            if keys[:end] in table:
                return table[keys[:end]]
        return self.values.get((), str(self.file or "recipe"))

    def is_of_file(self, keys: Keys) -> bool:
        """Whether the file gives `keys`, or the nearest mapping around an absent key."""
        return self.file is not None and self.position(keys).startswith(f"{self.file}:")

    def keys_of(self, dotted: str) -> tuple[str, ...]:
        """The keys that `dotted` leads along; a key may have dots itself."""
        parts = dotted.split(".")
        for end in range(len(parts), 1, -1):
            keys = (parts[0], ".".join(parts[1:end]), *parts[end:])
            if self.gives(keys):
                return keys
        return tuple(parts)

    def gives(self, keys: tuple[str, ...]) -> bool:
        """Whether the recipe has a value at `keys`."""
        place: Any = self.data
        for key in keys:
            if not isinstance(place, dict) or key not in place:
                return False
            place = place[key]
        return True

    def place(self, keys: Keys, *, of_key: bool = False) -> str:
        """`soup.yaml:8:10: learned.steps`, or the flag or variable alone if it says which key it sets."""
        where = self.position(keys, of_key=of_key)
        if keys in self.values and not self.is_of_file(keys):
            return where
        return f"{where}: {'.'.join(str(key) for key in keys)}" if keys else where

    def lay_over(self, keys: tuple[str, ...], value: Any, origin: str, *, beside_recipe: bool = True) -> None:
        """Set `keys` to `value`, given at `origin`. Missing mappings are created."""
        place = self.data
        for depth, key in enumerate(keys[:-1], 1):
            if not isinstance(place.get(key), dict):
                place[key] = {}
                self._moved(keys[:depth], origin)
            place = place[key]
        place[keys[-1]] = value
        self._moved(keys, origin)
        if beside_recipe:
            self.outside.discard(keys[0])
        else:
            self.outside.add(keys[0])

    def _moved(self, keys: Keys, origin: str) -> None:
        for table in (self.values, self.keys):
            for known in [known for known in table if known[: len(keys)] == keys]:
                del table[known]
            table[keys] = origin


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a float (YAML 1.2) and leaves `on`, `no`, 010, 12:30 and dates as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] == "null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_INT = re.compile(r"^[-+]?(?:0|[1-9][\d_]*|0x[0-9a-fA-F]+|0o[0-7]+)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_FLOAT = re.compile(
    r"""^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?   # 1.5  1.  1.5e-3
        |\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+       # .5  1e-3
        |\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_document(file: Path) -> Document:
    """The recipe in `file` with positions; doubled keys are among its `problems`.

    Raises RecipeError if it is not a mapping of plain YAML.
    """
    try:
        text = read_small(file, most=MAX_BYTES).decode("utf-8")
    except OSError as cause:
        raise RecipeError(f"{file}: {cause.strerror}", hint="soup init writes a recipe") from cause
    except UnicodeDecodeError as cause:
        raise RecipeError(
            f"{file}: not UTF-8 at byte {cause.start}", hint="convert it with iconv, or is it another file?"
        ) from cause
    document = Document(file)
    node = _compose(text, str(file))
    if node is None:
        return document
    data = _build(node, (), str(file), document)
    if not isinstance(data, dict):
        raise RecipeError(
            f"{_at(node, str(file))}: a recipe is a mapping of keys, not {_kind(data)}",
            hint="soup init writes one, soup schema recipe describes every key",
        )
    document.data = data
    return document


def parse_value(text: str, origin: str) -> Any:
    """The value that `text`, given on the command line at `origin`, stands for in YAML.

    `>` and `|` begin no block, for which there is no second line: `greedy.accept=>` means what it says.
    """
    if text.startswith((">", "|")):
        return text
    node = _compose(text, origin)
    if node is None:
        return None
    document = Document()
    value = _build(node, (), origin, document)
    if document.problems:
        raise RecipeError("\n".join(document.problems))
    return value


def _compose(text: str, origin: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        return _guarded_compose(loader, origin)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        where = _mark(mark, origin) if mark is not None else origin
        problem = getattr(cause, "problem", None) or str(cause).splitlines()[0]
        raise RecipeError(f"{where}: not YAML: {problem}") from cause
    finally:
        if loader is not None:
            loader.dispose()


def _guarded_compose(loader: _Loader, origin: str) -> yaml.Node | None:
    """Refuse aliases and deep nesting in the event stream, before anything is built from them."""
    depth = events = 0
    scout = _Loader(loader.buffer.rstrip("\0"))
    try:
        while scout.check_event():
            event: yaml.Event = scout.get_event()  # type: ignore[no-untyped-call]
            where = _mark(event.start_mark, origin)
            if isinstance(event, yaml.AliasEvent):
                raise RecipeError(f"{where}: aliases (*name) are not part of a recipe: write the value out")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise RecipeError(f"{where}: tags ({tag}) are not part of a recipe: write a plain value")
            events += 1
            if events > MOST_EVENTS:
                raise RecipeError(f"{where}: more than {MOST_EVENTS // 2} keys and values: a list of a file names them")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise RecipeError(f"{where}: nested deeper than {MAX_DEPTH}")
    finally:
        scout.dispose()
    return loader.get_single_node()


def _at(node: yaml.Node, origin: str) -> str:
    return origin if origin.startswith("--set") else _mark(node.start_mark, origin)


def _mark(mark: Any, origin: str) -> str:
    return f"{origin}:{mark.line + 1}:{mark.column + 1}"


def _build(node: yaml.Node, keys: Keys, origin: str, document: Document) -> Any:
    document.values[keys] = _at(node, origin)
    if isinstance(node, yaml.ScalarNode):
        document.problems.extend(_not_text(node, origin))
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                document.problems.append(f"{_at(key_node, origin)}: a key must be a word")
                continue
            document.problems.extend(_not_text(key_node, origin))
            inner = (*keys, key)
            if key in mapping:
                dotted = ".".join(str(part) for part in inner)
                twice = f"{dotted}: given twice, first at {document.keys[inner]}"
                document.problems.append(f"{_at(key_node, origin)}: {twice}")
                continue
            document.keys[inner] = _at(key_node, origin)
            mapping[key] = _build(value_node, inner, origin, document)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*keys, index), origin, document) for index, item in enumerate(node.value)]
    return _scalar(node)


def _not_text(node: yaml.Node, origin: str) -> list[str]:
    """The problem of an escape, such as `"\\0"` or `"\\uD800"`, that no name of a file, set or metric can hold."""
    odd = re.search("[\0\ud800-\udfff]", str(node.value))
    return [f"{_at(node, origin)}: {odd.group()!a} is no letter of a text"] if odd is not None else []


def _scalar(node: yaml.Node) -> Any:
    kind = node.tag.rpartition(":")[2]
    text = str(node.value)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int" and len(text) < MOST_DIGITS:
        return int(text.replace("_", ""), 0)
    if kind == "float":
        return float(re.sub(r"_|\.(?=[a-zA-Z])", "", text))
    return text


def _kind(value: object) -> str:
    return {list: "a list", str: "text", bool: "true or false", type(None): "nothing"}.get(type(value), "a number")
