"""Read a pickle as plain containers and inert stand-ins.

A StandIn keeps what the pickle says about an object: its class by name, its arguments, state and items. No class is
imported, no constructor, `__reduce__` or `__setstate__` is called. Nothing in this file needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules that Python 2 called otherwise
LARGEST_KEY = 1 << 60  # larger integers may all have one hash, which would make a dict quadratic
CONTAINERS = (dict, list, tuple, set, frozenset)


ENCODED = frozenset(("_codecs.encode", "codecs.encode", "builtins.bytearray", "__builtin__.bytearray"))


class Global:
    """The name of a class or function, by which a pickle asks for it."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = RENAMED.get(module, module)
        self.name = name

    @property
    def full_name(self) -> str:
        """The name with its module, e.g. `torch._utils._rebuild_parameter`."""
        return f"{self.module}.{self.name}"


class StandIn:
    """An object whose class is not looked at: what the pickle says about it."""

    __slots__ = ("_maker", "args", "entries", "items", "made_by", "state")

    def __init__(self, made_by: Any, args: Any) -> None:
        self.made_by = made_by  # a Global, or the StandIn of something that was called
        self._maker: Any = made_by._maker if isinstance(made_by, StandIn) else made_by  # of a chain of calls
        self.args = args
        self.state: Any = None
        self.items: list[Any] | None = None  # of a subclass of list
        self.entries: dict[Any, Any] | None = None  # of a subclass of dict

    @property
    def full_name(self) -> str:
        """The name of its class or of the function that makes it."""
        return self._maker.full_name if isinstance(self._maker, Global) else type(self._maker).__name__

    @property
    def attributes(self) -> Mapping[Any, Any]:
        """The attributes that the pickle gives it."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            return {**(state[0] if isinstance(state[0], dict) else {}), **state[1]}  # of a class with __slots__
        return state if isinstance(state, dict) else {}


class PersistentId:
    """A reference to something outside the pickle, such as a storage of torch."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Payload(NamedTuple):
    """Bytes or text too long to be a name, left where they lie in the file."""

    offset: int
    length: int
    text: bool  # whether UTF-8 encodes them


class Opaque:
    """A key of a dict or an item of a set whose hash could be slow; equal to nothing but itself."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        return f"({type(self.value).__name__})"


def key_of(value: Any) -> Any:
    """Returns `value` in a form that is hashed in constant time."""
    if isinstance(value, int) and not -LARGEST_KEY < value < LARGEST_KEY:
        return Opaque(value)
    return Opaque(value) if isinstance(value, (*CONTAINERS, bytearray)) else value


def call(function: Any, args: Any, spend: Callable[[int], None]) -> Any:
    """Returns what the pickle makes with `function`: a plain container, or a StandIn of what would be called.

    `spend` takes the size of a new container from the budget.
    """
    name = function.full_name if isinstance(function, Global) else ""
    known = _KNOWN.get(name)
    if known is not None and isinstance(args, tuple):
        spend(64 * sum(len(arg) for arg in args if isinstance(arg, CONTAINERS)))
        plain = known(args)
        if plain is not None:
            return plain
    if name in ("copyreg._reconstructor", "copyreg.__newobj__") and isinstance(args, tuple) and args:
        return StandIn(args[0], args[1:])
    return StandIn(function, args)


def bytes_of(value: Any) -> tuple[Any, str]:
    """Return the bytes or text of a value, perhaps left in the file, and how that text is still to be encoded.

    Protocols 2 and older, and bytearrays, keep bytes as a text of latin-1.
    """
    encoding = ""
    while isinstance(value, StandIn) and value.full_name in ENCODED and isinstance(value.args, tuple) and value.args:
        encoding = "latin-1"
        value = value.args[0]
    if isinstance(value, str) and encoding:
        try:
            return value.encode(encoding), ""
        except ValueError:
            return None, ""
    return value, encoding if isinstance(value, Payload) and value.text else ""


def _dict(args: tuple[Any, ...]) -> dict[Any, Any] | None:
    """A dict of the class's own arguments: none, or a list of pairs."""
    if not args:
        return {}
    pairs = args[0]
    if isinstance(pairs, dict):
        return dict(pairs)
    if isinstance(pairs, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        return {key_of(key): value for key, value in pairs}
    return None


def _default_dict(args: tuple[Any, ...]) -> dict[Any, Any] | None:
    return _dict(args[1:])


def _items(args: tuple[Any, ...]) -> list[Any] | None:
    if not args:
        return []
    return list(args[0]) if len(args) == 1 and isinstance(args[0], CONTAINERS) else None


def _tuple(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    items = _items(args)
    return tuple(items) if items is not None else None


def _set(args: tuple[Any, ...]) -> set[Any] | None:
    items = _items(args)
    return {key_of(item) for item in items} if items is not None else None


_KNOWN: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _default_dict,
    "builtins.dict": _dict,
    "builtins.list": _items,
    "builtins.tuple": _tuple,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "torch.Size": _tuple,
}


def entries_of(value: Any) -> Mapping[Any, Any] | None:
    """Returns the entries of a dict or of a subclass of dict, or None."""
    if isinstance(value, dict):
        return value
    return value.entries if isinstance(value, StandIn) else None


def parts_of(value: Any) -> Iterator[Any]:
    """Everything that `value` holds directly: entries, items, attributes and arguments."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, CONTAINERS):
        yield from value
    elif isinstance(value, StandIn):
        yield from (value.args, value.state, value.entries, value.items)


def find_in(value: Any, is_wanted: Callable[[Any], bool]) -> Iterator[Any]:
    """Everything wanted that lies anywhere in `value`; each object is looked at once, however often it is shared."""
    waiting, seen = [value], set[int]()
    while waiting:
        at = waiting.pop()
        if at is None or isinstance(at, str | bytes | int | float) or id(at) in seen:
            continue
        seen.add(id(at))
        if is_wanted(at):
            yield at
        else:
            waiting.extend(parts_of(at))
