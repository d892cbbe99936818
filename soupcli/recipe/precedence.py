"""A recipe from its file, `SOUP_*` variables, `--set` and flags.

Precedence: flag, then `--set`, then `SOUP_*` variable, then the file, then the default. Paths inside a recipe are
relative to the recipe's folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pydantic

from soupcli.errors import RecipeError
from soupcli.recipe.document import MOST_DIGITS, Document, parse_value, read_document
from soupcli.recipe.messages import hint_of, line_of
from soupcli.recipe.methods import OF_WAY
from soupcli.recipe.other_tools import OURS, tool_of
from soupcli.recipe.recipe import Recipe
from soupcli.wording import counted, suggestion

MOST_PROBLEMS = 100  # of a recipe that are told


def load_recipe(
    file: Path | None,
    *,
    variables: Mapping[str, object] | None = None,
    settings: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Recipe:
    """The recipe in `file` (None: an empty one) with environment, `--set` and flags laid over it.

    All keys are dotted; the values of `settings` are text that is read as YAML. Raises RecipeError with every problem,
    a line each, or with the tool whose file it is.
    """
    try:
        return _load(file, variables=variables or {}, settings=settings or {}, flags=flags or {})
    except RecipeError as refused:
        tool = tool_of(file) if file is not None else None
        if tool is None:
            raise
        found = ", ".join(f"{key}:" for key in sorted(tool.keys))
        hint = "; ".join(filter(None, (tool.advice, OURS)))
        raise RecipeError(f"{file}: is a file of {tool.name} (it has {found}), not a recipe", hint=hint) from refused


def _load(
    file: Path | None, *, variables: Mapping[str, object], settings: Mapping[str, str], flags: Mapping[str, object]
) -> Recipe:
    document = read_document(file) if file is not None else Document()
    for key, value in variables.items():
        shown = key.rpartition(".")[2].upper()
        document.lay_over(tuple(key.split(".")), value, f"SOUP_{shown}", beside_recipe=False)
    for key, text in settings.items():
        document.lay_over(tuple(key.split(".")), parse_value(text, f"--set {key}"), f"--set {key}")
    for key, value in flags.items():
        shown = key.rpartition(".")[2].replace("_", "-")
        document.lay_over(tuple(key.split(".")), value, f"--{shown}", beside_recipe=False)
    _leave_unused(document)
    return _validate(document)


def _leave_unused(document: Document) -> None:
    """Take the file's settings of the other way out if a flag or variable says which way coefficients are found."""
    section = document.data.get("learned")
    if not isinstance(section, dict) or document.is_of_file(("learned", "by")):
        return
    way = section.get("by")
    for key in OF_WAY["gradient" if way == "search" else "search"] if way in OF_WAY else ():
        if key in section and document.is_of_file(("learned", key)):
            del section[key]
            document.unused.append(f"{document.place(('learned', key), of_key=True)}: --by {way} has no use for it")


def _validate(document: Document) -> Recipe:
    base = document.file.parent if document.file is not None else Path()
    lines, recipe, more, hint = list(document.problems), None, 0, None
    try:
        recipe = Recipe.model_validate(document.data, context={"base": base})
    except pydantic.ValidationError as invalid:
        lines += [line_of(error, document) for error in invalid.errors()[:MOST_PROBLEMS]]
        more, hint = max(0, invalid.error_count() - MOST_PROBLEMS), hint_of(invalid.errors())
    if recipe is not None:
        lines += _unknown_sets(recipe, document)
    if recipe is None or lines:
        rest = [f"{document.file}: {counted(more, 'problem')} more"] if more else []
        raise RecipeError("\n".join([*sorted(dict.fromkeys(lines), key=_natural), *rest]), hint=hint)
    outside = {key: Path(str(document.data[key])) for key in document.outside if key in ("out", "base")}
    recipe = recipe.model_copy(update=outside)
    recipe._document = document
    return recipe


def _unknown_sets(recipe: Recipe, document: Document) -> list[str]:
    """A line for each gate of a set that the recipe lacks."""
    unknown = [gate for gate in recipe.wanted if gate.set not in recipe.val]
    places = [document.place(document.keys_of(gate.key), of_key=True) for gate in unknown]
    return [
        f"{place}: no set {gate.set!r}{suggestion(gate.set, recipe.val)}"
        for place, gate in zip(places, unknown, strict=True)
    ]


def _natural(line: str) -> list[int | str]:
    return [int(part) if part.isdecimal() and len(part) < MOST_DIGITS else part for part in re.split(r"(\d+)", line)]
