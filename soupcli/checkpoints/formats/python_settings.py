"""Settings that stand in Python text, such as the configurations of mmengine and detectron2, as maps, lists and text.

of_python("model = dict(depth=50)\\nmodel.act = 'relu'")  # {"model": {"depth": 50, "act": "relu"}}

The text is parsed, and never run. What is no plain value, such as what a function returns, is left out.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

DEEPEST = 30  # levels of values, and of classes
LONGEST = 200_000  # letters of a text
MOST_MADE = 1_000_000  # items and letters that sums and calls make
LAZY = {"L", "LazyCall"}  # of detectron2: L(ResNet)(depth=50) is what ResNet(depth=50) will be
PLACES = {"Normalize": ("mean", "std"), "Resize": ("size",), "CenterCrop": ("size",)}  # of torchvision's arguments
TARGET = "type"  # the entry with the name of what a call makes, as mmengine calls it
FIRST = re.compile(r"(?:\s*(?:#[^\n]*|'''.*?'''|\"\"\".*?\"\"\")?\n)*\w+[ \t]*=[^=]", re.DOTALL)
NUMBERS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
AS_GIVEN = {"list", "tuple", "array", "asarray", "tensor", "float32"}  # calls that return what they are given
LISTS, MAPS = {"list", "tuple"}, {"dict", "OrderedDict"}  # of a text, the letters
MOST_NUMBER = 1e18
MOST_LOOKED_AT = 4_000  # letters before the first setting


class _UnknownError(Exception):
    """What an expression makes is not known without running it."""


def is_python(text: str) -> bool:
    """Whether a text may be settings in Python: several lines, of which the first that counts sets a name."""
    return "\n" in text and len(text) <= LONGEST and FIRST.match(text[:MOST_LOOKED_AT]) is not None


@lru_cache(maxsize=64)  # ingredients have copies of the same code, and several checks ask
def of_python(content: str) -> dict[str, Any]:
    """Return the plain values that a module's own lines, and those of its classes, give to names.

    Raises ValueError if the text is broken or too long.
    """
    if len(content) > LONGEST:
        raise ValueError(f"more than {LONGEST} letters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in its texts
            module = ast.parse(content)
    except (SyntaxError, RecursionError, MemoryError) as cause:
        raise ValueError(f"not Python: {cause}") from cause
    names: dict[str, Any] = {}
    _LinesOfCode(names).read(module.body, names, 0)
    return {name: value for name, value in names.items() if not name.startswith("__")}


class _LinesOfCode:
    """Reads lines in their order. `names` are the module's."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names
        self._left = MOST_MADE

    def read(self, lines: Iterable[ast.stmt], into: dict[str, Any], depth: int) -> None:
        for line in lines:
            if isinstance(line, ast.ClassDef) and depth < DEEPEST:
                into[line.name] = {}
                self.read(line.body, into[line.name], depth + 1)
                for method in (part for part in line.body if isinstance(part, ast.FunctionDef)):
                    if method.name == "__init__":  # of YOLOX, whose settings are attributes
                        self.read(method.body, {"self": into[line.name]}, depth + 1)
            for target, expression in _set_by(line):
                try:
                    value = self._value(expression, into, 0)
                except (_UnknownError, ArithmeticError, TypeError, ValueError):
                    _put(target, into, _UnknownError)
                else:
                    _put(target, into, value)

    def _value(self, node: ast.expr, names: Mapping[str, Any], depth: int) -> Any:
        if depth > DEEPEST:
            raise _UnknownError
        below = depth + 1
        match node:
            case ast.Constant(value=str() | int() | float() | None as value):
                return value
            case ast.Name(id=name) if name in names or name in self._names:
                return names.get(name, self._names.get(name))
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self._value(part, names, below) for part in parts]
            case ast.Dict(keys=keys, values=values):
                return self._map(zip(keys, values, strict=True), names, below)
            case ast.Call():
                return self._call(node, names, below)
            case _:
                return self._made_of_others(node, names, below)

    def _made_of_others(self, node: ast.expr, names: Mapping[str, Any], depth: int) -> Any:
        """Return what an operator makes of values, or an entry of one."""
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=part):
                return self._joined(0, ast.Sub(), self._value(part, names, depth))
            case ast.BinOp(left=left, op=op, right=right):
                return self._joined(self._value(left, names, depth), op, self._value(right, names, depth))
            case ast.Attribute(value=part, attr=name):
                return _entry(self._value(part, names, depth), name)
            case ast.Subscript(value=part, slice=at):
                return _entry(self._value(part, names, depth), self._value(at, names, depth))
            case _:
                raise _UnknownError

    def _joined(self, one: Any, op: ast.operator, other: Any) -> Any:
        """Return a sum or product of numbers, or two texts or lists in one."""
        if isinstance(one, int | float) and isinstance(other, int | float) and type(op) in NUMBERS:
            value = NUMBERS[type(op)](one, other)
            if math.isfinite(value) and abs(value) < MOST_NUMBER:
                return value
        alike = any(isinstance(one, kind) and isinstance(other, kind) for kind in (str, list))
        if not alike or not isinstance(op, ast.Add):
            raise _UnknownError
        self._make(len(one) + len(other))
        return one + other

    def _map(
        self, pairs: Iterable[tuple[ast.expr | None, ast.expr]], names: Mapping[str, Any], depth: int
    ) -> dict[Any, Any]:
        """Return a map of the pairs whose values are known; a pair without a key is another map."""
        found: dict[Any, Any] = {}
        for key, expression in pairs:
            try:
                value = self._value(expression, names, depth)
                if key is not None:
                    found[self._key(key, names, depth)] = value
                elif isinstance(value, dict):
                    self._make(len(value))
                    found |= value
            except (_UnknownError, ArithmeticError, TypeError, ValueError):
                continue
        return found

    def _key(self, node: ast.expr, names: Mapping[str, Any], depth: int) -> str | int:
        key = self._value(node, names, depth)
        if not isinstance(key, str | int):
            raise _UnknownError
        return key

    def _call(self, node: ast.Call, names: Mapping[str, Any], depth: int) -> Any:
        """Return dict(...), list(...) and tuple(...), and of other calls a map of what they are made with."""
        name = _called(node.func)
        given = [(ast.Constant(each.arg) if each.arg is not None else None, each.value) for each in node.keywords]
        if name in AS_GIVEN and node.args:
            value = self._value(node.args[0], names, depth)
            self._make(len(value) if isinstance(value, str) else 0)
            return list(value) if isinstance(value, str) and name in LISTS else value
        if name == "split" and isinstance(node.func, ast.Attribute):
            return self._parts(node.func.value, node.args, names, depth)
        if name in MAPS:
            return self._map([*self._pairs(node.args), *given], names, depth)
        if not given and not name[:1].isupper():
            raise _UnknownError
        named: dict[str | int, ast.expr] = dict(zip(PLACES.get(name, ()), node.args, strict=False))
        rest = [each.elts if isinstance(each, ast.List) else [each] for each in node.args[len(named) :]]
        numbered = enumerate(part for parts in rest for part in parts)
        placed = [(ast.Constant(at), part) for at, part in (named | dict(numbered)).items()]
        return {TARGET: name, **self._map([*placed, *given], names, depth)}

    def _pairs(self, args: Sequence[ast.expr]) -> Iterator[tuple[ast.expr | None, ast.expr]]:
        """Yield the entries of a list of pairs, or another map without a key."""
        for each in args:
            parts = each.elts if isinstance(each, ast.List) else []
            pairs = [part.elts for part in parts if isinstance(part, ast.Tuple | ast.List) and len(part.elts) == 2]
            yield from ((pair[0], pair[1]) for pair in pairs) if parts and len(pairs) == len(parts) else [(None, each)]

    def _parts(self, text: ast.expr, marks: Sequence[ast.expr], names: Mapping[str, Any], depth: int) -> list[str]:
        """Return the parts of a text: `"cat dog".split()`."""
        given, mark = self._value(text, names, depth), self._value(marks[0], names, depth) if marks else None
        if not isinstance(given, str) or not (mark is None or isinstance(mark, str)):
            raise _UnknownError
        self._make(len(given))
        return given.split(mark)

    def _make(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _UnknownError


def _set_by(line: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield what a line gives a value to, with the value."""
    match line:
        case ast.Assign(targets=targets, value=value):
            yield from ((target, value) for target in targets)
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            yield target, value
        case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
            yield target, ast.BinOp(ast.Name(name), op, value)
        case _:
            pass


def _put(target: ast.expr, into: dict[str, Any], value: Any) -> None:
    """Give a name, or an entry of the map that a name stands for, its value. An unknown one has none from then on."""
    match target:
        case ast.Name(id=name):
            holder: Any = into
        case ast.Attribute(value=above, attr=name) | ast.Subscript(value=above, slice=ast.Constant(value=str(name))):
            holder = _held(above, into)
        case _:
            return
    if value is not _UnknownError and isinstance(holder, dict):
        holder[name] = value
    elif isinstance(holder, dict):
        holder.pop(name, None)


def _held(node: ast.expr, names: Mapping[str, Any], depth: int = 0) -> Any:
    """Return the value that a name or an entry of its map has, or None."""
    match node:
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=above, attr=key) | ast.Subscript(value=above, slice=ast.Constant(value=key)):
            held = _held(above, names, depth + 1) if depth < DEEPEST else None
            return held.get(key) if isinstance(held, dict) else None
        case _:
            return None


def _entry(value: Any, key: Any) -> Any:
    if isinstance(value, dict) and isinstance(key, str) and key in value:
        return value[key]
    if isinstance(value, list) and type(key) is int and -len(value) <= key < len(value):
        return value[key]
    raise _UnknownError


def _called(node: ast.expr) -> str:
    """Return the last part of the name of what is called."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Name(id=lazy), args=[ast.Name(id=name) | ast.Attribute(attr=name)]) if lazy in LAZY:
            return name
        case _:
            raise _UnknownError
