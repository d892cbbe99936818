"""`soup demo [digits|text|images] [DIR]`: real ingredients to try soups on, fine-tuned on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from soupcli.cli.parsing import DONE, Invocation
from soupcli.demo import digits, images, text
from soupcli.errors import UsageError
from soupcli.output import console
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.cli.options import DemoOptions

Kind = Literal["digits", "text", "images"]
MAKERS: dict[Kind, Callable[..., None]] = {"digits": digits.make, "text": text.make, "images": images.make}


def demo(options: DemoOptions, _invocation: Invocation) -> int:
    """Fine-tune real models to try soups on."""
    kind, folder = _kind_and_folder(options.words or [])
    with console.ProgressReporter(silent=options.quiet) as progress:
        MAKERS[kind](folder, seed=options.seed, progress=progress)
    if not options.quiet:
        console.note(f"next: cd {folder} && soup greedy --ckpts runs/*/ --val val")
    console.print_lines([str(folder)])
    return DONE


def _kind_and_folder(words: list[str]) -> tuple[Kind, Path]:
    kind = next((kind for kind in MAKERS if words[:1] == [kind]), None)
    rest = words[1:] if kind else words
    near = suggestion(rest[0], MAKERS) if rest and not kind and not Path(rest[0]).exists() else ""
    if len(rest) > 1 or near:
        raise UsageError(f"soup demo: {rest[0]!r} is no demo{near}", hint=f"soup demo [{'|'.join(MAKERS)}] [DIR]")
    chosen: Kind = kind or "digits"
    return chosen, Path(rest[0]) if rest else Path(f"demo-{chosen}")
