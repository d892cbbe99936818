"""Options that take many bare words: `--ckpts a b c --val x`.

The command's own parser sees `--ckpts=a --ckpts=b --ckpts=c`, so help, completion and errors stay Typer's. A word of
the command's own, such as the REPORT of `soup mix REPORT`, stands before the first such option.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperOption

from soupcli.errors import UsageError


class ListOptionsCommand(TyperCommand):
    """A command whose repeatable options also take several words at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Typer's own parsing, after bare words were given the option that they follow."""
        options = [param for param in self.get_params(ctx) if isinstance(param, TyperOption)]
        many = {name for option in options if option.multiple for name in option.opts}
        single = {name for option in options if not option.multiple and not option.is_flag for name in option.opts}
        known = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        takes_words = any(not isinstance(param, TyperOption) for param in self.get_params(ctx))
        if ctx.resilient_parsing or not many:  # completion reads lines that are not finished
            return super().parse_args(ctx, args)
        asked_for_help = [word for word in args if word in ctx.help_option_names]
        return super().parse_args(ctx, asked_for_help[:1] or spread(args, many, single, known, words=takes_words))


def spread(args: Sequence[str], many: set[str], single: set[str], known: set[str], *, words: bool = False) -> list[str]:
    """`--ckpts a b` as `--ckpts=a --ckpts=b`; words after `--` belong to the last list option.

    `many` are the options that take several words, `single` those that take one; an option that is not `known` is the
    last word that comes out, for Typer to refuse. Raises UsageError for a list option with no value, for an empty word
    and, unless the command takes `words` of its own, for one that follows no option.
    """
    out: list[str] = []
    option: str | None = None  # the list option whose words are being read
    given = 0
    rest_of = iter(args)
    for word in rest_of:
        name, equals, value = word.partition("=")
        if word == "--":
            own = words and option is None
            rest = list(rest_of) if own else [_given_to(option, following) for following in rest_of]
            out.extend(rest)
            given += len(rest)
        elif name in many:
            _check_given(option, given)
            option, given = name, int(bool(equals))
            out.extend([_given_to(name, value)] if equals else [])
        elif word.startswith("-") and word != "-":
            _check_given(option, given)
            option = None
            out.append(word)
            if name.startswith("--") and name not in known:
                return out
            if _wants_word(word, single) and (following := next(rest_of, None)) is not None:
                out.append(following)
        elif words and option is None and word.strip():
            out.append(word)
        else:
            out.append(_given_to(option, word))
            given += 1
    _check_given(option, given)
    return out


def _wants_word(word: str, single: set[str]) -> bool:
    """Whether the next word is the value of `word`: `--out` and `-qo` want one, `--out=x` and `-ox` have it."""
    if word.startswith("--"):
        return word in single
    letters = [f"-{letter}" in single for letter in word[1:]]
    return True in letters and letters.index(True) == len(letters) - 1


def _given_to(option: str | None, word: str) -> str:
    if option is None:
        hint = f"checkpoints go after --ckpts: --ckpts {word}" if word.strip() else "is a shell variable unset?"
        raise UsageError(f"{word!r} follows no option", hint=hint)
    if not word.strip():
        raise UsageError(f"{option}: an empty word", hint="is a shell variable unset?")
    return f"{option}={word}"


def _check_given(option: str | None, given: int) -> None:
    if option is not None and not given:
        raise UsageError(f"{option}: needs at least one value", hint="did a glob match nothing?")
