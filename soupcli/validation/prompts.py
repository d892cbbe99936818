"""`classnames:` and `templates:`: what a zero-shot CLIP classifier is built from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from soupcli.errors import ValidationError
from soupcli.validation.set_file import read_lines

TEMPLATES = ("a photo of a {}.",)  # the first of CLIP's own, for sets that name none


class Prompts(NamedTuple):
    """Names of all classes, in the order of the logits, and the templates that each is put into."""

    classnames: tuple[str, ...]
    templates: tuple[str, ...]


def read(classnames: Path, templates: Path | None) -> Prompts:
    """The lines of both files. Raises ValidationError for a template without a place for the name."""
    return Prompts(tuple(read_lines(classnames)), _templates(templates) if templates is not None else TEMPLATES)


def _templates(file: Path) -> tuple[str, ...]:
    lines = read_lines(file)
    for number, line in enumerate(lines, 1):
        try:
            filled = line.format("name")
        except (LookupError, ValueError) as cause:
            raise ValidationError(f"{file}:{number}: not a template: {cause}") from cause
        if filled == line:
            raise ValidationError(f"{file}:{number}: has no {{}} where the class name goes")
    return tuple(lines)
