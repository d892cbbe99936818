"""The command `soup`. torch is imported inside commands, so that `soup --help` answers at once."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from soupcli import __version__, processes
from soupcli.cli import (
    demo,
    evaluate,
    greedy,
    init,
    inspect,
    interruption,
    landscape,
    learned,
    mix,
    pairs,
    plot,
    rank,
    report,
    schema,
    uniform,
    verify,
)
from soupcli.cli.commands import guarded
from soupcli.errors import UsageError

TOGETHER = {"rank", "greedy", "learned", "eval"}  # commands that several processes do as one
SIGNALLED = 128  # exit codes above it are of signals

app = typer.Typer(
    name="soup",
    help="Model soups: average the weights of several fine-tuned models into one better and more robust model.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"soup {__version__}")
        raise typer.Exit


@app.callback()
def _soup(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for module in (
    rank,
    uniform,
    greedy,
    learned,
    evaluate,
    inspect,
    mix,
    landscape,
    pairs,
    verify,
    plot,
    report,
    init,
    schema,
    demo,
):
    module.register(app)


def main() -> None:
    """Entry point of the console script and of `python -m soupcli`."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # paths go through as they are, and no letter is an error
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "replace")
    # Threads of torch that wait sleep: awake, they take the cores of those that read and mix, and of other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with interruption.heard():
        code = run(sys.argv[1:])
        if code > SIGNALLED or (code and processes.started() > 1):  # threads and processes are not waited for
            os._exit(code)
    processes.leave()
    sys.exit(code)


def run(words: list[str]) -> int:
    """`soup WORDS...` to an exit code; whatever goes wrong has been printed."""
    return guarded(lambda: _invoke(words))


def _together(words: list[str]) -> None:
    """Meets the other processes. Raises UsageError for commands that would do everything as often as there are."""
    if processes.started() > 1:
        if not TOGETHER.intersection(words[:1]):
            named = f"soup {words[0]}" if words else "soup"
            raise UsageError(f"{named}: runs in one process", hint=f"in several: {', '.join(sorted(TOGETHER))}")
        processes.join()


def _invoke(words: list[str]) -> int:
    _together(words)
    try:
        app(words, prog_name="soup")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer ends with 1 where nobody reads its help
            raise end.__context__ from None
        return end.code if isinstance(end.code, int) else 0
    return 0
