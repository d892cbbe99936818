"""The JSON Schema of a model, with the docstrings below its fields as their descriptions.

pydantic can take these when it makes the class, and would parse the files of all models at every start.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of `model` and of all models in it, by the names that people write."""
    models = list(dict.fromkeys(_models_in(model)))
    texts = {file: _texts(file) for file in {inspect.getfile(base) for one in models for base in _bases(one)}}
    for one in models:
        known = {name: text for base in reversed(_bases(one)) for name, text in _of(base, texts).items()}
        for name, field in one.model_fields.items():
            field.description = field.description or known.get(name)
        one.model_rebuild(force=True)
    return model.model_json_schema(by_alias=True)


def text_below(model: type[BaseModel], field: str) -> str | None:
    """The docstring below a field of `model` or of a class that it extends, or None."""
    known = (_texts(inspect.getfile(base)).get(base.__qualname__, {}).get(field) for base in _bases(model))
    return next((text for text in known if text is not None), None)


def _bases(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The model and those that it extends."""
    return [base for base in model.__mro__ if issubclass(base, BaseModel) and base is not BaseModel]


def _models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Those inside before those that hold them."""
    for field in model.model_fields.values():
        for inner in _classes(field.annotation):
            yield from _models_in(inner)
    yield model


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _classes(part)


def _of(model: type[BaseModel], texts: dict[str, dict[str, dict[str, str]]]) -> dict[str, str]:
    return texts[inspect.getfile(model)].get(model.__qualname__, {})


def _texts(file: str) -> dict[str, dict[str, str]]:
    """Class -> field -> the docstring below it, of the classes of a file."""
    tree = ast.parse(Path(file).read_text("utf-8"))
    return {node.name: dict(_below_fields(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _below_fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = below.value.value if isinstance(below.value, ast.Constant) else None
            if isinstance(text, str):
                yield field.target.id, inspect.cleandoc(text)
