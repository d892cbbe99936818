"""`soup demo [digits|text|images] [DIR]`: real ingredients to try soups on, fine-tuned on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from soupcli.cli import console
from soupcli.cli.commands import guarded

Kind = Literal["digits", "text", "images"]

if TYPE_CHECKING:
    from collections.abc import Callable


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("demo", epilog="soup demo digits demo/")(demo)


def demo(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="digits (default), text or images; then the folder.", metavar="[KIND] [DIR]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of data splits, start and draws.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the folder alone.")] = False,
) -> None:
    """Fine-tune real models to try soups on.

    They come from one start, with validation, test and shifted sets and a recipe.
    """
    code = guarded(lambda: _demo(words or [], seed, quiet))
    if code:
        raise typer.Exit(code)


def _demo(words: list[str], seed: int, quiet: bool) -> int:
    kind, folder = _kind_and_folder(words)
    with console.ProgressReporter(silent=quiet) as progress:
        _maker(kind)(folder, seed=seed, progress=progress)
    if not quiet:
        console.note(f"next: cd {folder} && soup greedy --ckpts runs/*/ --val val")
    console.print_result(str(folder))
    return 0


def _kind_and_folder(words: list[str]) -> tuple[Kind, Path]:
    from soupcli.errors import UsageError
    from soupcli.recipe_yaml import suggestion

    kinds: tuple[Kind, ...] = get_args(Kind)
    kind = next((kind for kind in kinds if words[:1] == [kind]), None)
    rest = words[1:] if kind else words
    near = suggestion(rest[0], kinds) if rest and not kind and not Path(rest[0]).exists() else ""
    if len(rest) > 1 or near:
        raise UsageError(f"soup demo: {rest[0]!r} is no demo{near}", hint=f"soup demo [{'|'.join(kinds)}] [DIR]")
    chosen: Kind = kind or "digits"
    return chosen, Path(rest[0]) if rest else Path(f"demo-{chosen}")


def _maker(kind: Kind) -> Callable[..., None]:
    from soupcli.demo import digits, images, text

    makers: dict[Kind, Callable[..., None]] = {"digits": digits.make, "text": text.make, "images": images.make}
    return makers[kind]
