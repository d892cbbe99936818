"""`soup schema` prints JSON Schema of recipes and reports."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from soupcli.recipe.recipe import Recipe
from tests.conftest import Ran

Soup = Callable[..., Ran]


@pytest.mark.parametrize("of", ["recipe", "report"])
def test_prints_a_schema(soup: Soup, of: str) -> None:
    """One JSON document, the same each time, in which no key but those described is allowed."""
    ran = soup("schema", of)
    assert (ran.code, ran.stderr) == (0, "")
    schema = json.loads(ran.stdout)
    assert (schema["title"], schema["type"], schema["additionalProperties"]) == (of.capitalize(), "object", False)
    assert soup("schema", of).stdout == ran.stdout


def test_recipe_keys_are_described(soup: Soup) -> None:
    """Editors get every key of a recipe, most with a description."""
    properties = json.loads(soup("schema", "recipe").stdout)["properties"]
    assert set(properties) == set(Recipe.model_fields)
    assert "description" in properties["metric"] and "description" in properties["batch_norm"]


@pytest.mark.parametrize("words", [[], ["recip"], ["recipe", "report"]])
def test_mistakes(soup: Soup, words: list[str]) -> None:
    """Anything but recipe or report is a usage error."""
    ran = soup("schema", *words)
    assert (ran.code, ran.stdout) == (2, "")
    assert "recipe" in ran.stderr or "(report)" in ran.stderr
