"""Turns a function of one options object into a command: its flags, exit codes and errors."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

import typer
from typer.core import TyperCommand, TyperOption

from soupcli import processes
from soupcli.cli import signals
from soupcli.cli.help import in_groups
from soupcli.cli.variables import unread
from soupcli.errors import CheckpointErrors, RecipeError, SoupError, UsageError
from soupcli.late import importing
from soupcli.output import console
from soupcli.output.streams import keep_stdout
from soupcli.wording import suggestion


class ListOptionsCommand(TyperCommand):
    """A command whose repeatable options also take several words at once."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the options in groups."""
        for title, rows in in_groups(self.get_params(ctx), ctx):
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, _ctx: Any, formatter: Any) -> None:
        """Writes the examples, a line each."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.epilog.split("\n")))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse with Typer after each bare word was given to the list option before it."""
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
    """Return `--ckpts a b` as `--ckpts=a --ckpts=b`. Words after `--` belong to the last list option.

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
        raise UsageError(f"unexpected argument {word!r}", hint=hint)
    if not word.strip():
        raise UsageError(f"{option}: an empty word", hint="is a shell variable unset?")
    return f"{option}={word}"


def _check_given(option: str | None, given: int) -> None:
    if option is not None and not given:
        raise UsageError(f"{option}: needs at least one value", hint="did a glob match nothing?")


DONE, ANSWER_NO, USER_ERROR, FAULT = 0, 1, 2, 3


class Command(NamedTuple):
    """One command: a row of the table in `cli/app.py`. The last columns say what it takes part in."""

    name: str
    options: type  # a dataclass whose fields are Typer's arguments and options
    function: str  # "module:function" of (options, invocation) -> exit code; imported when the command runs
    help: str
    examples: tuple[str, ...] = ()
    several_processes: bool = False  # several processes can do it together
    selects: bool = False  # its soup depends on the scores on the first set
    takes_objective: bool = False  # it ranks or chooses by `objective:`, over several sets
    searches_by_objective: bool = False  # so does its search for coefficients, though its fit goes by one set
    tries_windows: bool = False  # --windows chooses among the last checkpoints of one run
    mixes_base: bool = False  # --alpha and --method stock mix the checkpoint of --base itself
    scales: bool = False  # its last step may be the way from --base to the soup
    measures_from_base: bool = False  # it measures all checkpoints from --base, so --base is never unused
    each_alone: bool = False  # it takes each checkpoint as it is, so their names need not agree
    looks_at_singles: bool = False  # --group-by makes no difference to it
    takes_doubles: bool = False  # checkpoints of equal weights are looked at each; elsewhere they count once
    judges_soups: bool = False  # it compares the soups among its checkpoints with the best ingredient among them


class Invocation(NamedTuple):
    """A call of a command: its row of the table, and the options that came from the environment."""

    command: Command
    from_environment: frozenset[str]
    given: Mapping[str, Any] = {}  # parts of the recipe that a caller in Python gives as objects


def add_command(app: typer.Typer, row: Command) -> None:
    """Adds a command to the app. Its module is imported when it is called."""

    def run(ctx: typer.Context, **values: Any) -> None:
        for text in unread(os.environ) if processes.is_first() else ():
            console.warn(text)
        options = row.options(**values)
        sources = {key: ctx.get_parameter_source(key) for key in values}
        environment = frozenset(
            key for key, source in sources.items() if source is not None and source.name == "ENVIRONMENT"
        )
        keep_stdout()
        code = guarded(lambda: _function(row)(options, Invocation(row, environment)))
        if code:
            raise typer.Exit(code)

    hints = get_type_hints(row.options, include_extras=True)
    run.__doc__ = row.help
    run.__signature__ = _signature(row.options, hints)  # type: ignore[attr-defined]
    run.__annotations__ = {"ctx": typer.Context, **hints}
    app.command(row.name, cls=ListOptionsCommand, epilog="\n".join(row.examples))(run)


def _function(row: Command) -> Callable[[Any, Invocation], int | None]:
    module, _, name = row.function.partition(":")
    with importing():
        function: Callable[[Any, Invocation], int | None] = getattr(importlib.import_module(module), name)
    return function


def _signature(options_class: Any, hints: Mapping[str, Any]) -> inspect.Signature:
    kind = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    fields = [
        inspect.Parameter(field.name, kind, default=_default(field), annotation=hints[field.name])
        for field in dataclasses.fields(options_class)
    ]
    return inspect.Signature([context, *fields])


def _default(field: dataclasses.Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


NO_THREADS = "can't start new thread"  # Python's words for a limit of the system


def guarded(work: Callable[[], int | None]) -> int:
    """Run a command and turn whatever ends it into an exit code. Errors are printed here and nowhere else."""
    try:
        code = work() or DONE
        console.flush()
    except SoupError as error:
        text = str(error).strip()
        console.fail(
            *(text.split("\n") if isinstance(error, RecipeError | CheckpointErrors) else [text]), hint=error.hint
        )
        return USER_ERROR
    except OSError as refused:
        return _refused(refused)
    except ImportError as broken:
        return _not_imported(broken)
    except MemoryError:
        console.fail("out of memory", hint="use --batch-size with a smaller number, or a machine with more memory")
        return USER_ERROR
    except KeyboardInterrupt as interrupt:
        code = signals.code_of(interrupt)
        signals.tell(code)
        return code
    except RuntimeError as fault:
        if str(fault) != NO_THREADS:
            return _fault(fault)
        console.fail(f"the system refuses: {fault}", hint="end other processes, or allow more of them: ulimit -u")
        return USER_ERROR
    except Exception as fault:  # noqa: BLE001 - the last resort: whatever is left is a fault of ours
        return _fault(fault)
    except BaseException as end:  # noqa: BLE001 - sys.exit and the like, in code that a command runs
        return _ended(end)
    return code


def _ended(end: BaseException) -> int:
    """Print what has ended the command before its result: sys.exit(0) is no answer."""
    if os.environ.get("SOUP_DEBUG") == "1":
        console.print_traceback()
    last = traceback.extract_tb(end.__traceback__)[-1]
    said = f": {end}" if str(end) else ""
    hint = "code that a command runs is to return or to raise an error, not to end the process"
    console.fail(f"{last.filename}:{last.lineno}: {type(end).__name__}{said}: ended the command", hint=hint)
    return USER_ERROR


def is_of_typer(end: SystemExit) -> bool:
    """Whether Typer has ended the command, as after the shell's completion."""
    frames = [frame for frame, _ in traceback.walk_tb(end.__traceback__)]
    return frames[-1].f_globals.get("__name__", "").partition(".")[0] in ("typer", "click")


def _refused(refused: OSError) -> int:
    """Print an error of the system, such as a full disk or a failing device, with the file if it is known."""
    if os.environ.get("SOUP_DEBUG") == "1":
        console.print_traceback()
    said = refused.strerror or str(refused) or type(refused).__name__
    named = refused.filename if isinstance(refused.filename, (str, bytes, os.PathLike)) else None
    console.fail(f"{os.fsdecode(named)}: {said}" if named is not None else f"the system refuses: {said}")
    return USER_ERROR


def _not_imported(broken: ImportError) -> int:
    """Print which library does not load; a module of this program that does not is a fault."""
    if broken.name is not None and broken.name.partition(".")[0] == "soupcli":
        return _fault(broken)
    if os.environ.get("SOUP_DEBUG") == "1":
        console.print_traceback()
    return _not_loaded("torch", str(broken).strip())


def _not_loaded(library: str, why: str) -> int:
    hint = f"is the installation whole, and is there memory? python -c 'import {library}' shows it by itself"
    console.fail(f"a library does not load: {why}", hint=hint)
    return USER_ERROR


def _raised_by_import(fault: Exception) -> str | None:
    """Return the name of the library that this program was importing when an error ended the import, or None."""
    name, here = None, os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - of frames
    for frame, _ in traceback.walk_tb(fault.__traceback__):
        if frame.f_code.co_filename.startswith(here):
            name = None
        elif name is None and frame.f_code.co_name == "<module>":
            name = str(frame.f_globals.get("__name__"))
    return name


def _fault(fault: Exception) -> int:
    if os.environ.get("SOUP_DEBUG") == "1":
        console.print_traceback()
    if (library := _raised_by_import(fault)) is not None:
        return _not_loaded(library, f"{library}: {type(fault).__name__}: {str(fault).strip()}")
    last = traceback.extract_tb(fault.__traceback__)[-1]
    where = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119 - a name out of a traceback
    console.fail(
        f"internal error: {type(fault).__name__}: {str(fault).strip()} ({where})",
        hint="this is a fault of soup: SOUP_DEBUG=1 shows the traceback to report",
    )
    return FAULT


# What Typer raises for words that it cannot read; typer.BadParameter is one of them.
UsageProblem: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def in_our_words(problem: Any, words: Sequence[str], commands: Sequence[str]) -> UsageError:
    """Turn a usage error of Typer into an error of one line with a hint."""
    named = words[0] if words and words[0] in commands else None
    where = f"soup {named}" if named else "soup"
    hint = f"{where} --help shows what there is"
    option, possible = getattr(problem, "option_name", None), getattr(problem, "possibilities", None)
    if type(problem).__name__ == "NoSuchOption":
        return UsageError(f"{where}: no option {option}{suggestion(str(option), possible or ())}", hint=hint)
    unknown = re.match(r"No such command '(.*?)'", problem.format_message())
    if unknown is not None:
        near = suggestion(unknown[1], commands, least=0.5)
        return UsageError(f"soup: no command {unknown[1]!r}{near}", hint=hint)
    said, own_hint = _of_value(problem)
    message = problem.format_message().partition(". Choose from:")[0].strip()  # the name of the argument lists them
    text = re.sub(r"^Invalid value for '?(.*?)'?( \(env var: '.*?'\))?: ", r"\1: ", message).rstrip(".")
    if said:
        text = f"{text.partition(': ')[0]}: {said}"
    text = text[:1].lower() + text[1:] if not text.startswith(("-", "SOUP")) else text
    return UsageError(f"{where}: {text}", hint=own_hint or hint)


def _of_value(problem: Any) -> tuple[str, str]:
    """Return what is wrong with a value in the words of a recipe's errors, and what its option means, or "" and ""."""
    invalid = getattr(problem.__cause__, "errors", None)  # of pydantic, by which Typer reads values
    if invalid is None:
        return "", ""
    from soupcli.recipe.messages import said_of  # noqa: PLC0415 - recipes are read by commands alone

    param = problem.param
    about = (getattr(param, "help", None) or "").removesuffix(".")
    return said_of(invalid()[0]), f"{param.opts[0]}: {about}" if about else ""
