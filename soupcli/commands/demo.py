"""`soup demo [digits|text|images] [DIR]`: real ingredients to try soups on, fine-tuned on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from soupcli.cli.parsing import DONE, Invocation
from soupcli.errors import UsageError
from soupcli.output import console
from soupcli.output.progress_bars import ProgressReporter
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.cli.options.without_checkpoints import DemoOptions

Kind = Literal["digits", "text", "images"]
KINDS = get_args(Kind)


def demo(options: DemoOptions, _invocation: Invocation) -> int:
    """Fine-tune real models to try soups on."""
    kind, folder = _kind_and_folder(options.words or [])
    with ProgressReporter(silent=options.quiet) as progress:
        maker(kind)(folder, seed=options.seed, progress=progress)
    if not options.quiet:
        console.note(f"next: cd {folder} && soup greedy --ckpts runs/*/ --val val")
    console.print_lines([str(folder)])
    return DONE


def maker(kind: Kind) -> Callable[..., None]:
    """Return the function that makes a demo's data and ingredients. It trains, so it is imported late."""
    from soupcli.demo import digits, images, text

    makers: dict[Kind, Callable[..., None]] = {"digits": digits.make, "text": text.make, "images": images.make}
    return makers[kind]


def _kind_and_folder(words: list[str]) -> tuple[Kind, Path]:
    kind = next((kind for kind in KINDS if words[:1] == [kind]), None)
    rest = words[1:] if kind else words
    near = suggestion(rest[0], KINDS) if rest and not kind and not Path(rest[0]).exists() else ""
    if len(rest) > 1 or near:
        raise UsageError(f"soup demo: {rest[0]!r} is no demo{near}", hint=f"soup demo [{'|'.join(KINDS)}] [DIR]")
    chosen: Kind = kind or "digits"
    return chosen, Path(rest[0]) if rest else Path(f"demo-{chosen}")
