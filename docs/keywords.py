"""Writes soupcli/cli/keyword_types.py: the keywords of the functions of soupcli, from the commands' own options.

make docs              # or: python docs/keywords.py; a test holds the file to this
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from soupcli.cli.keywords import PRINTING
from soupcli.cli.options.soups import GreedyOptions, LearnedOptions, MixOptions, SoupOptions
from soupcli.cli.options.surveys import EvalOptions, InspectOptions, RankOptions
from soupcli.cli.options.without_checkpoints import VerifyOptions
from soupcli.recipe.recipe import Recipe
from soupcli.run.words.recipe import RECIPE_KEYS

TARGET = Path(__file__).parent.parent / "soupcli/cli/keyword_types.py"
FUNCTIONS = {
    "rank": RankOptions,
    "uniform": SoupOptions,
    "greedy": GreedyOptions,
    "learned": LearnedOptions,
    "evaluate": EvalOptions,
    "inspect": InspectOptions,
    "mix": MixOptions,
    "verify": VerifyOptions,
}
POSITIONAL = {"mix": {"report"}, "verify": {"soup"}}  # words of the command line; a function takes its soup first
# Texts of the command line that are numbers or lists in Python.
NUMBERS = {
    "alpha": "str | float | Sequence[float]",
    "weights": "str | Sequence[float]",
    "windows": "str | int | Sequence[int]",
    "max_shard_size": "str | int",
    "min_delta": "str | float",
    "require_gain": "str | float",
    "device": "str | torch.device",
    "dtype": "str | torch.dtype",
    "weights_for": "Mapping[str, str | Sequence[float]] | Sequence[str]",
}
HEAD = '''"""The keywords of soupcli's functions, for type checkers and editors.

docs/keywords.py writes this file: make docs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import torch
    from torch import nn

Words = str | Path | Iterable[str | Path]


class OwnKeywords(TypedDict, total=False):
    """What no command has: functions of the caller, and what is said of them."""

    evaluate: Callable[[Any], Any]
    model: Callable[[], nn.Module]
    higher_is_better: bool | None
    score_key: str | None
'''


def text() -> str:
    """The whole file."""
    kinds = {name: _kinds(name, options) for name, options in FUNCTIONS.items()}
    shared = set.intersection(*({*of.items()} for name, of in kinds.items() if name != "verify"))
    common = [pair for pair in kinds["rank"].items() if pair in shared]
    classes = [_class("SharedKeywords", "OwnKeywords", "What all commands that read checkpoints have.", common)]
    for name, of in kinds.items():
        parent = "TypedDict" if name == "verify" else "SharedKeywords"
        own = [pair for pair in of.items() if name == "verify" or pair not in shared]
        about = f"The options of `soup {'eval' if name == 'evaluate' else name}`."
        classes.append(_class(f"{name.capitalize()}Keywords", parent, about, own))
    return HEAD + "".join(classes)


def _class(name: str, parent: str, about: str, fields: Sequence[tuple[str, str]]) -> str:
    lines = [f"class {name}({parent}, total=False):", f'    """{about}"""', ""]
    return "\n".join(["", "", *lines, *(f"    {key}: {kind}" for key, kind in fields), ""])


def _kinds(name: str, options: type) -> dict[str, str]:
    """The types of a function's keywords by their names, in the order of the options."""
    hints = get_type_hints(options, include_extras=True)
    found = {}
    for field in dataclasses.fields(options):
        hidden = any(getattr(one, "hidden", False) for one in getattr(hints[field.name], "__metadata__", ()))
        if field.name not in PRINTING and field.name not in POSITIONAL.get(name, ()) and not hidden:
            found[field.name] = _kind(field.name, hints[field.name])
    return found


def _kind(name: str, hint: Any) -> str:
    """The type that Python takes: the option's own, with lists and choices as they are in Python."""
    [kind, *_] = get_args(hint)
    optional = " | None" if type(None) in get_args(kind) else ""
    [inner, *_] = [one for one in (get_args(kind) or (kind,)) if one is not type(None)] if optional else [kind]
    return f"{_inner(name, inner)}{optional}"


def _inner(name: str, inner: Any) -> str:
    if name in NUMBERS:
        return NUMBERS[name]
    if inner is str:
        return _choices(name) or "str"
    if get_origin(inner) is list:
        return "Words" if get_args(inner) == (str,) else "int | Sequence[int]"
    return {Path: "str | Path", bool: "bool", int: "int", float: "float"}[inner]


def _choices(name: str) -> str | None:
    """`Literal[...]` of the recipe's key that the option stands for, if that is what it is."""
    place: Any = Recipe
    for key in RECIPE_KEYS.get(name, "").split("."):
        field = getattr(place, "model_fields", {}).get(key)
        if field is None:
            return None
        place = field.annotation
    parts = [place, *get_args(place)]
    parts += [inner for part in parts for inner in get_args(part)]  # of what is annotated
    literal = next((one for one in parts if get_origin(one) is Literal), None)
    return f"Literal[{', '.join(f'{word!r}' for word in get_args(literal))}]".replace("'", '"') if literal else None


if __name__ == "__main__":
    TARGET.write_text(text(), "utf-8")
