"""Options that take many bare words: `--ckpts a b c --val x`.

The command's own parser sees `--ckpts a --ckpts b --ckpts c`, so help, completion and errors stay Typer's. Such a
command takes no positional arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption


class ListOptionsCommand(TyperCommand):
    """A command whose repeatable options also take several words at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Typer's own parsing, after bare words were given the option that they follow."""
        options = [param for param in self.get_params(ctx) if isinstance(param, TyperOption)]
        many = {name for option in options if option.multiple for name in option.opts}
        single = {name for option in options if not option.multiple and not option.is_flag for name in option.opts}
        return super().parse_args(ctx, spread(args, many, single))


def spread(args: Sequence[str], many: set[str], single: set[str]) -> list[str]:
    """`--ckpts a b` as `--ckpts=a --ckpts=b`; words after `--` belong to the last list option.

    Raises typer.BadParameter for a list option with no value and for an empty word.
    """
    out: list[str] = []
    option: str | None = None  # the list option whose words are being read
    given = 0
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--":
            for rest in words:
                out.append(_value(option, rest) if option else rest)
                given += 1
            break
        if name in many:
            _check_given(option, given)
            option, given = name, 0
            if equals:
                out.append(_value(name, value))
                given = 1
        elif word.startswith("-") and word != "-":
            _check_given(option, given)
            option = None
            out.append(word)
            if name in single and not equals:
                out.extend([following] if (following := next(words, None)) is not None else [])
        elif option is not None:
            out.append(_value(option, word))
            given += 1
        else:
            out.append(word)
    _check_given(option, given)
    return out


def _value(option: str, word: str) -> str:
    if not word.strip():
        raise typer.BadParameter(f"{option}: an empty word\n\nhint: is a shell variable unset?")
    return f"{option}={word}"


def _check_given(option: str | None, given: int) -> None:
    if option is not None and not given:
        raise typer.BadParameter(f"{option} needs at least one value\n\nhint: did a glob match nothing?")
