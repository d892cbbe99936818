"""The command `soup`. torch is imported inside commands, so that `soup --help` answers at once."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
from typing import Annotated, Any

import typer

from soupcli import __version__, processes
from soupcli.cli import signals
from soupcli.cli.help import WIDEST, WholeLinesGroup
from soupcli.cli.options.soups import GreedyOptions, LearnedOptions, MixOptions, ScalableOptions
from soupcli.cli.options.surveys import EvalOptions, InspectOptions, LandscapeOptions, PairsOptions, RankOptions
from soupcli.cli.options.without_checkpoints import (
    CacheOptions,
    DemoOptions,
    InitOptions,
    PlotOptions,
    PushOptions,
    ReportPageOptions,
    SchemaOptions,
    VerifyOptions,
)
from soupcli.cli.parsing import DONE, USER_ERROR, Command, UsageProblem, add_command, guarded, in_our_words, is_of_typer
from soupcli.errors import UsageError
from soupcli.late import Searches
from soupcli.output import console
from soupcli.output.streams import open_streams

COMMANDS = (
    Command(
        "rank",
        RankOptions,
        "soupcli.commands.rank:rank",
        "Evaluate every checkpoint alone, best first.",
        examples=(
            "soup rank --ckpts runs/*/ --val imagenet-val",
            "soup rank --ckpts runs --prefer best --val dev.csv:sentence:label --metric f1",
            "best=$(soup rank --ckpts runs/*/ --val data/val --quiet | head -1)",
        ),
        several_processes=True,
        takes_objective=True,
        each_alone=True,
    ),
    Command(
        "uniform",
        ScalableOptions,
        "soupcli.commands.uniform:uniform",
        "Average all checkpoints; needs no model and no validation set.",
        examples=(
            "soup uniform --ckpts runs/*/ --out soup/",
            "soup uniform --ckpts runs/*/ --val data/val",
            "soup uniform --ckpts runs --last 5 --dtype bf16",
        ),
        scales=True,
    ),
    Command(
        "greedy",
        GreedyOptions,
        "soupcli.commands.greedy:greedy",
        "Add checkpoints, best first, as long as the mean gets no worse.",
        examples=(
            "soup greedy --ckpts runs/*/ --val imagenet-val imagenet-v2",
            "soup greedy --ckpts runs --prefer best --val data/val --holdout 0.5",
            "soup greedy --ckpts runs/*/ --val dev.csv:sentence:label --metric f1 --require-gain 0.1%",
        ),
        several_processes=True,
        selects=True,
        takes_objective=True,
        tries_windows=True,
        scales=True,
    ),
    Command(
        "learned",
        LearnedOptions,
        "soupcli.commands.learned:learned",
        "Fit mixing coefficients by gradient, or search for them.",
        examples=(
            "soup learned --ckpts runs/*/ --val imagenet-val imagenet-v2",
            "soup learned --ckpts runs/*/ --val data/val --holdout 0.5",
            "soup learned --ckpts runs/*/ --val imagenet-val --per tensor --set learned.steps=200",
        ),
        several_processes=True,
        selects=True,
        searches_by_objective=True,
        scales=True,
    ),
    Command(
        "eval",
        EvalOptions,
        "soupcli.commands.evaluate:evaluate",
        "Evaluate checkpoints and soups on any number of sets.",
        examples=(
            "soup eval --ckpts soup/ runs/*/ --val imagenet-val imagenet-v2",
            "soup eval --ckpts soup/ runs/a --val test.csv:sentence:label --metric accuracy",
            "soup eval --ckpts soup/ --val test --json --report eval.json",
        ),
        several_processes=True,
        each_alone=True,
        judges_soups=True,
        takes_doubles=True,
    ),
    Command(
        "inspect",
        InspectOptions,
        "soupcli.commands.inspect:inspect",
        "Check whether checkpoints can be averaged; explain problems.",
        examples=(
            "soup inspect --ckpts runs/*/ --base start/ --val imagenet-val",
            "soup inspect --ckpts runs/*/",
            "soup inspect --ckpts runs/*/ --strict --json",
        ),
        takes_doubles=True,
        measures_from_base=True,
        looks_at_singles=True,
    ),
    Command(
        "mix",
        MixOptions,
        "soupcli.commands.mix:mix",
        "Average with given weights, or rebuild a soup from its report.",
        examples=(
            "soup mix --ckpts runs/a runs/b --weights 0.7,0.3",
            "soup mix --ckpts runs/*/ --base start/ --alpha 0:1:0.1 --val imagenet-val",
            "soup mix soup/soup.json --out again/",
        ),
        mixes_base=True,
    ),
    Command(
        "landscape",
        LandscapeOptions,
        "soupcli.commands.landscape:landscape",
        "Score the plane through three checkpoints, on a grid.\n\n"
        "Every point of the plane is a mixture of the three, with negative weights outside the triangle.\n"
        "Scores are kept: an interrupted run continues, and a finer grid evaluates only new points.\n"
        "soup plot and soup report draw the report.",
        examples=("soup landscape --ckpts start/ runs/a runs/b --val test; soup plot landscape.json --kind landscape",),
    ),
    Command(
        "pairs",
        PairsOptions,
        "soupcli.commands.pairs:pairs",
        "Measure angle and gain of pairs of checkpoints.\n\n"
        "The angle is between their offsets from --base, the network that they were fine-tuned from. The gain\n"
        "is the score of their mean minus the score of the better one. N checkpoints need N(N-1)/2\n"
        "evaluations per set besides their own; --pairs draws fewer. soup plot and soup report draw the\n"
        "report.",
        examples=("soup pairs --ckpts runs/*/ --base start/ --val test; soup plot pairs.json --kind angles",),
        measures_from_base=True,
    ),
    Command(
        "verify",
        VerifyOptions,
        "soupcli.commands.verify:verify",
        "Check a soup against its report and its ingredients.",
        examples=("soup verify soup/ --rebuild",),
    ),
    Command(
        "push",
        PushOptions,
        "soupcli.commands.push:push",
        "Upload a soup to the Hub, if it is what its report says.",
        examples=("soup push soup/ org/name --private",),
    ),
    Command(
        "plot",
        PlotOptions,
        "soupcli.commands.plot:plot",
        "Draw the figures of a report, as PNG or SVG.\n\n"
        "scores: the selecting score against every other set, one dot per ingredient. A greedy soup's report\n"
        "scores its ingredients on the selecting set only, so add a report of soup rank on all sets\n"
        "(soup rank --ckpts runs/*/ --val val test --report rank.json; soup plot soup.json rank.json).\n"
        "path: the greedy soup step by step. coefficients: the layers of a learned soup. alpha: soup mix\n"
        "--alpha. scale: --scale. search: soup learned --by search. landscape: soup landscape.\n"
        "angles: soup pairs. geometry: soup inspect. correlations: soup greedy --strategy experts.\n\n"
        "One --kind is written to --out. Several get names of their own: plot-scores.png, plot-path.png.",
        examples=("soup plot soup/soup.json rank.json --kind scores --out figure1.svg",),
    ),
    Command(
        "report",
        ReportPageOptions,
        "soupcli.commands.report:report",
        "Write a report as one self-contained HTML page.\n\n"
        "It shows scores with standard errors, figures, steps, members, cost, versions and the recipe, in\n"
        "light and dark themes and in print. It loads nothing from elsewhere. Like soup plot it takes several\n"
        "reports: a greedy soup's report scores its ingredients on the selecting set only, and\n"
        "soup rank --val A B --report rank.json scores them on all.",
        examples=("soup report soup/soup.json rank.json --out report.html",),
    ),
    Command(
        "init",
        InitOptions,
        "soupcli.commands.init:init",
        "Write a commented soup.yaml for what is in this folder.",
        examples=("soup init",),
    ),
    Command(
        "cache",
        CacheOptions,
        "soupcli.commands.cache:cache",
        "Show what is kept between runs, or remove it.",
        examples=("soup cache inputs --clear",),
    ),
    Command(
        "schema",
        SchemaOptions,
        "soupcli.commands.schema:schema",
        "Print the JSON Schema of a recipe or of a report.",
    ),
    Command(
        "demo",
        DemoOptions,
        "soupcli.commands.demo:demo",
        "Fine-tune real models to try soups on.\n\n"
        "They share one start, and come with a recipe and validation, test and shifted sets.",
        examples=("soup demo digits demo/",),
    ),
)
SIGNALLED = 128  # exit codes above it are of signals


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"soup {__version__}")
        raise typer.Exit


def _soup(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@functools.cache
def app_of(*rows: Command) -> typer.Typer:
    """`soup` with these commands. Typer builds every option of each: a call that names a command builds this one."""
    app = typer.Typer(
        name="soup",
        cls=WholeLinesGroup,
        help="Model soups: average the weights of several fine-tuned models into one better and more robust model.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST},
    )
    app.callback()(_soup)
    for row in rows:
        add_command(app, row)
    return app


def main() -> None:
    """Entry point of the console script and of `python -m soupcli`."""
    open_streams()
    # Threads of torch that wait sleep: awake, they take the cores of those that read and mix, and of other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    Searches.skip_imports = True
    with signals.handle_signals():
        code = run(sys.argv[1:])
        if code > SIGNALLED or (code and processes.started() > 1):  # threads and processes are not waited for
            os._exit(code)
    processes.leave()
    if "torch" in sys.modules:
        _leave_at_once(code)
    sys.exit(code)


def _leave_at_once(code: int) -> None:
    """End the process as multiprocessing ends its own: torch is not taken apart, which takes a fifth of its import."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):  # nobody reads, or it is closed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run(words: list[str]) -> int:
    """Run `soup WORDS...` and return its exit code. Errors are printed, not raised."""
    signals.begin()
    return guarded(lambda: _invoke(words))


def _meet_other_processes(words: list[str]) -> None:
    """Wait until all processes have joined. Raises UsageError for a command that runs in one process only."""
    if processes.started() > 1:
        together = sorted(row.name for row in COMMANDS if row.several_processes)
        if not words or words[0] not in together:
            named = f"soup {words[0]}" if words else "soup"
            raise UsageError(f"{named}: runs in one process", hint=f"in several: {', '.join(together)}")
        processes.join()


def _check_system() -> None:
    """Raises UsageError on Windows, whose files have neither the locks nor the owners that this program relies on."""
    if sys.platform.startswith("win"):
        hint = "WSL runs it as Linux does: wsl --install, then pip install model-soup there"
        raise UsageError("soup: runs on Linux and macOS, not on Windows", hint=hint)


def _invoke(words: list[str]) -> int:
    _check_system()
    _meet_other_processes(words)
    named = [row for row in COMMANDS if words[:1] == [row.name]]
    try:
        code: object = app_of(*named or COMMANDS)(words, prog_name="soup", standalone_mode=False)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer ends with 1 if nobody reads its help
            console.drop_result()
            return DONE
        if not is_of_typer(end):
            raise
        return end.code if isinstance(end.code, int) else 0
    except UsageProblem as problem:
        return _refused_words(problem, words)
    if code == signals.INTERRUPTED:
        signals.raise_again()
    return code if isinstance(code, int) else DONE


def _refused_words(problem: Any, words: list[str]) -> int:
    """Show the help if no words were given. Raises UsageError for words that Typer cannot read."""
    if type(problem).__name__ == "NoArgsIsHelpError":
        problem.show()
        return USER_ERROR
    raise in_our_words(problem, words, [row.name for row in COMMANDS]) from None
