"""How a function of one options object becomes a command: its flags, its exit codes, its errors."""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import typer

from soupcli.cli import console, interruption
from soupcli.cli.list_options import ListOptionsCommand
from soupcli.errors import RecipeError, SoupError

DONE, ANSWER_NO, USER_ERROR, FAULT = 0, 1, 2, 3


class Invocation(NamedTuple):
    """What Typer knows beside the values: which of them came from the environment."""

    from_environment: frozenset[str]


def command(app: typer.Typer, name: str, *, examples: str = "") -> Callable[[Callable[..., int | None]], Any]:
    """Registers `function(options, invocation)` whose first annotation is a dataclass of Typer options.

    The function's docstring is the command's help; what it returns is the exit code.
    """

    def register(function: Callable[..., int | None]) -> Any:
        options_class = next(iter(get_type_hints(function).values()))

        def run(ctx: typer.Context, **values: Any) -> None:
            options = options_class(**values)
            sources = {key: ctx.get_parameter_source(key) for key in values}
            environment = frozenset(
                key for key, source in sources.items() if source is not None and source.name == "ENVIRONMENT"
            )
            code = guarded(lambda: function(options, Invocation(environment)))
            if code:
                raise typer.Exit(code)

        run.__doc__ = function.__doc__
        run.__signature__ = _signature(options_class)  # type: ignore[attr-defined]
        run.__annotations__ = {"ctx": typer.Context, **get_type_hints(options_class, include_extras=True)}
        app.command(name, cls=ListOptionsCommand, epilog=examples or None)(run)
        return function

    return register


def _signature(options_class: Any) -> inspect.Signature:
    hints = get_type_hints(options_class, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    fields = [
        inspect.Parameter(field.name, kind, default=_default(field), annotation=hints[field.name])
        for field in dataclasses.fields(options_class)
    ]
    return inspect.Signature([context, *fields])


def _default(field: dataclasses.Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def guarded(work: Callable[[], int | None]) -> int:
    """Runs a command and turns whatever ends it into an exit code; errors are printed here and nowhere else."""
    try:
        code = work() or DONE
        sys.stdout.flush()
    except SoupError as error:
        console.fail(str(error) if isinstance(error, RecipeError) else _in_one_line(error), error.hint)
        return USER_ERROR
    except BrokenPipeError:
        _drop_stdout()
        return DONE
    except OSError as refused:
        return _refused(refused)
    except KeyboardInterrupt as interrupt:
        code = interruption.code_of(interrupt)
        interruption.tell(code)
        return code
    except Exception as fault:  # noqa: BLE001 - the last resort: whatever is left is a fault of ours
        return _fault(fault)
    return code


def _in_one_line(error: object) -> str:
    """Of what files say, and libraries, a new line is no end of ours; a recipe's problems alone have a line each."""
    return str(error).strip().replace("\n", "\\n")


def _refused(refused: OSError) -> int:
    """What the system says of a file that the user named, where nothing more is known of it; else a fault of ours."""
    if refused.filename is None:
        return _fault(refused)
    if os.environ.get("SOUP_DEBUG") == "1":
        traceback.print_exc()
    console.fail(f"{_in_one_line(os.fsdecode(refused.filename))}: {refused.strerror}")
    return USER_ERROR


def _fault(fault: Exception) -> int:
    if os.environ.get("SOUP_DEBUG") == "1":
        traceback.print_exc()
    last = traceback.extract_tb(fault.__traceback__)[-1]
    where = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119 - a name out of a traceback
    console.fail(
        f"internal error: {type(fault).__name__}: {_in_one_line(fault)} ({where})",
        "this is a fault of soup: SOUP_DEBUG=1 shows the traceback to report",
    )
    return FAULT


def _drop_stdout() -> None:
    """Lets the interpreter end without a second complaint about the closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
