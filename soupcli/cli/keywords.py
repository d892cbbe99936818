"""The options of a command from keyword arguments: the same classes, names and limits as on the command line."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from soupcli.errors import UsageError
from soupcli.recipe.messages import said_of
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.cli.parsing import Command

PRINTING = ("as_json", "quiet", "dry_run", "output_format", "relative")  # how a command prints
_DEFAULTS = {True: False, False: None}  # of switches, of all else
Function = TypeVar("Function", bound=Callable[..., Any])


def listed(keywords: type) -> Callable[[Function], Function]:
    """Give a function a signature that lists each keyword of its TypedDict, for help() and notebooks."""

    def with_signature(function: Function) -> Function:
        shown = inspect.signature(function)
        *first, _ = shown.parameters.values()
        kinds = {name: getattr(kind, "__forward_arg__", kind) for name, kind in keywords.__annotations__.items()}
        own = [parameter.name for parameter in first]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[kind == "bool"], annotation=kind)
            for name, kind in kinds.items()
            if name not in own
        ]
        function.__signature__ = shown.replace(parameters=[*first, *more])  # type: ignore[attr-defined]
        return function

    return with_signature


def options_of(row: Command, keywords: Mapping[str, Any]) -> Any:
    """Return the command's options. Raises UsageError for an unknown name and for a value of the wrong type."""
    known = [field.name for field in dataclasses.fields(row.options) if field.name not in PRINTING]
    hints = get_type_hints(row.options, include_extras=True)
    for name in keywords:
        if name in PRINTING:
            raise UsageError(f"{row.name}: {name}= is of the command line, a function prints nothing")
        if name not in known:
            raise UsageError(
                f"{row.name}: no option {name!r}{suggestion(name, known)}", hint=f"it has {', '.join(known)}"
            )
    return row.options(**{name: _value(row.name, name, value, hints[name]) for name, value in keywords.items()})


def _value(command: str, name: str, value: Any, hint: Any) -> Any:
    kinds, about = set(_kinds(hint)), _meaning(name, hint)
    try:
        found = TypeAdapter(hint).validate_python(_as_words(value, kinds))
    except ValidationError as invalid:
        raise UsageError(f"{command}: {name}=: {said_of(invalid.errors()[0])}", hint=about) from invalid
    least = next((one.min for one in getattr(hint, "__metadata__", ()) if one.min is not None), None)
    if least is not None and isinstance(found, int | float) and found < least:
        raise UsageError(f"{command}: {name}={value!r}: at least {least:g} is needed", hint=about)
    return found


def _meaning(name: str, hint: Any) -> str | None:
    """Return what the option means, as its help says."""
    texts = (getattr(one, "help", None) for one in getattr(hint, "__metadata__", ()))
    return next((f"{name}: {text.removesuffix('.')}" for text in texts if text), None)


def _kinds(hint: Any) -> Iterator[Any]:
    """Return all types in a hint: list[str], str and None for `list[str] | None`."""
    for part in get_args(hint):
        yield part
        yield from _kinds(part)


def _as_words(value: Any, kinds: set[Any]) -> Any:
    """Return the value as on the command line: numbers as text, a single value as a list if the option is one."""
    if value is None or isinstance(value, bool):
        return value
    if list[str] in kinds:
        return list(_words(value))
    if list[int] in kinds:
        return list(value) if isinstance(value, Iterable) else [value]
    if type(value).__module__ == "torch":  # torch.bfloat16, torch.device("cuda:0")
        return str(value).removeprefix("torch.")
    if str in kinds and not isinstance(value, str):
        return ",".join(map(_text, value)) if isinstance(value, list | tuple) else _text(value)
    return value


def _words(value: Any) -> Iterator[str]:
    """Return the words of a list option. A mapping becomes pairs of a pattern and its weights."""
    if isinstance(value, Mapping):
        for pattern, weights in value.items():
            several = isinstance(weights, Iterable) and not isinstance(weights, str)
            yield from (str(pattern), ",".join(map(_text, weights)) if several else _text(weights))
    elif isinstance(value, Iterable) and not isinstance(value, str):
        yield from map(_text, value)
    else:
        yield _text(value)


def _text(value: Any) -> str:
    """Return a number or a path as text. Raises UsageError for anything else."""
    if isinstance(value, str | Path | int | float) and not isinstance(value, bool):
        return str(value)
    raise UsageError(
        f"{value!r}: neither a text nor a number nor a path",
        hint="give what the flag takes on the command line, or a list of such",
    )
