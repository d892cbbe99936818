"""Writes the last files of a soup's folder: the model card, made from the report, then the report, which lists it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.side_files import LARGEST
from soupcli.files.small_file import read_small
from soupcli.mixing.old_soup import CARD, REPORT
from soupcli.output import console
from soupcli.output.card import CardSources, ReadMe, model_card

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.mixing.mixture import Mixture
    from soupcli.mixing.soup_folder import SoupFolder
    from soupcli.report.report import Report

# Files beside the weights -> the library that reads such a folder.
LIBRARIES = {
    "model_index.json": "diffusers",
    "modules.json": "sentence-transformers",
    "open_clip_config.json": "open_clip",
    "adapter_config.json": "peft",
}


def add_card(folder: SoupFolder, report: Report, mixture: Mixture) -> Report:
    """Write the card, unless the recipe forbids it or the user has a README. Returns the report that lists it."""
    soup = report.soup
    assert soup is not None
    if not report.recipe.get("card", True):
        return report
    if CARD in folder.kept:
        left_out = [*soup.left_out, f"{CARD}: the one that is there was edited, and stays"]
        return report.model_copy(update={"soup": soup.model_copy(update={"left_out": left_out})})
    kept = _readme(mixture.kept)
    library = next((name for file, name in LIBRARIES.items() if (folder.path / file).is_file()), None)
    if library is None and not report.recipe.get("merge_adapters"):  # the README of an adapter names PEFT
        library = _named(kept)
    beside = CardSources(
        [_readme(member) for member in mixture.members],
        kept,
        library or (None if report.recipe.get("merge_adapters") else _named(kept)),
    )
    digest = folder.add(CARD, model_card(report, beside).encode("utf-8", "backslashreplace"))
    files = [*(name for name in soup.files if name not in (CARD, REPORT)), CARD, REPORT]
    hashes = {**soup.file_hashes, CARD: digest}
    return report.model_copy(update={"soup": soup.model_copy(update={"files": files, "file_hashes": hashes})})


def finish(folder: SoupFolder, report: Report, mixture: Mixture) -> Report:
    """Write card and report, and give the folder its final name. Returns the written report."""
    report = add_card(folder, report, mixture)
    (folder.path / REPORT).write_text(report.to_json(), "utf-8")
    folder.commit()
    if folder.rest is not None:
        console.warn(f"{folder.rest}: is left of the old soup: the system does not remove it")
    return report


def _readme(checkpoint: Checkpoint) -> ReadMe:
    folder = checkpoint.side_folder
    file = folder / CARD if folder is not None else Path()
    try:
        return ReadMe.of(read_small(file, most=LARGEST).decode("utf-8", "replace"))
    except OSError:
        return ReadMe()


def _named(readme: ReadMe) -> str | None:
    library = readme.front.get("library_name")
    return library if isinstance(library, str) else None
