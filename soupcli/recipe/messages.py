"""Turn pydantic's errors into lines: `soup.yaml:8:10: learned.steps: ...`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from soupcli.recipe.document import Document
from soupcli.recipe.networks import NETWORKS
from soupcli.recipe.recipe import Recipe
from soupcli.recipe.schema import text_below
from soupcli.recipe.section import Section
from soupcli.recipe.sets import SETS
from soupcli.wording import suggestion


def line_of(error: Any, document: Document) -> str:
    """One error of pydantic's with its place in the document, and the nearest key if there is one."""
    kind = error["type"]
    path = tuple(part for part in error["loc"] if part != "[key]")
    names = _without_tags(path)
    place = document.place(names, of_key=kind == "extra_forbidden")
    if kind == "extra_forbidden":
        return f"{place}: unknown key{suggestion(str(names[-1]), _home(path)[0].model_fields)}"
    if kind == "missing":
        return f"{place}: missing"
    said = said_of(error)
    own_key = f"{place.removeprefix('--').replace('-', '_')}: "  # a section's check begins with the key it is about
    return f"{place}: {said.removeprefix(own_key) if place.startswith('--') else said}"


SENTENCE_END = re.compile(r"(?<!e\.g)\.( |$)")
FEW_KEYS = 20  # that a hint lists

# What pydantic says for people who write Python, said for people who write a recipe.
_MESSAGES = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "expected a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "expected true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "expected a mapping of keys"),
    "string_type": "expected text",
    "path_type": "expected a path",
    "list_type": "expected a list",
    "too_short": "expected a list of at least {min_length}",
    "too_long": "expected a list of at most {max_length}",
    "less_than": "expected less than {lt}",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "literal_error": "expected {expected}",
}


def said_of(error: Any) -> str:
    """Return what is wrong, without the place: `expected a whole number, got 'x'`."""
    kind, given = error["type"], error["input"]
    if kind in _MESSAGES:
        message = _MESSAGES[kind].format(**error.get("ctx", {}))
    else:
        message = str(error["msg"]).removeprefix("Value error, ")
    if "got" not in message and not isinstance(given, dict):
        message += f", got {'nothing' if given is None else repr(given)}"
    if kind == "literal_error":
        message += suggestion(str(given), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    if kind == "kind" and isinstance(given, dict):
        kinds = NETWORKS if error["loc"] == ("model",) else SETS
        message += next(filter(None, (suggestion(str(key), kinds) for key in given if key not in kinds)), "")
    return message


def _without_tags(path: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The keys of `path` as they are in the file: pydantic adds the tag of a union after `model` and `val.NAME`."""
    tag = {"model": 1, "val": 2}.get(str(path[0]), len(path)) if path else 0
    return path[:tag] + path[tag + 1 :]


def hint_of(errors: Sequence[Any]) -> str:
    """Return what the key of the only error means, or which keys there are; of several errors, where all keys are."""
    every = "soup schema recipe describes every key"
    if len(errors) != 1 or not errors[0]["loc"]:
        return every
    section, key = _home(errors[0]["loc"])
    text = text_below(section, key)
    if text is not None:
        return f"{key}: {SENTENCE_END.split(' '.join(text.split()), maxsplit=1)[0]}"
    known = list(section.model_fields)
    return f"the keys here are {', '.join(known)}" if len(known) <= FEW_KEYS and key not in known else every


def _home(path: tuple[int | str, ...]) -> tuple[type[Section], str]:
    """The section that the first key of `path` is in, as deep as sections go, and that key."""
    match path:
        case ("model", kind, key, *_) if kind in NETWORKS:
            return NETWORKS[str(kind)], str(key)
        case ("val", _, kind, key, *_) if kind in SETS:
            return SETS[str(kind)], str(key)
        case (part, key, *_) if (section := _section_at(str(part))) is not None:
            return section, str(key)
        case _:
            return Recipe, str(path[0])


def _section_at(key: str) -> type[Section] | None:
    field = Recipe.model_fields.get(key)
    kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
