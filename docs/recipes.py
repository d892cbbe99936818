"""docs/recipes.md, made from the recipe's own models: every key, its default and what it means.

python docs/recipes.py            # writes docs/recipes.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soupcli.recipe.recipe import Recipe
from soupcli.recipe.schema import json_schema

PAGE = Path(__file__).with_name("recipes.md")
HEAD = """# Recipes

A recipe says what the network is, which validation sets there are and how a soup is made: `soup.yaml` in the working
folder, or the file after `--recipe`. Paths in it are relative to it. A flag comes before a `SOUP_*` variable, that
before the recipe, that before the default; `--set` sets any key:

```sh
soup greedy --ckpts runs/*/ --val val --set greedy.min_delta=0.001 --set 'metrics=[nll, ece]' --dry-run
```

Unknown and doubled keys are errors, with their place and the nearest key. `soup schema recipe` prints the same as JSON
Schema, for editors that complete and check YAML:

```sh
soup schema recipe > recipe.schema.json
```

This page is made from the program by `python docs/recipes.py`.
"""
SECTIONS = {
    "model": "One of these. Without it, the config.json beside the weights says what the network is.",
    "val": "Each set has a name, and is one of these.",
}


def page() -> str:
    """The whole page."""
    schema = json_schema(Recipe)
    properties, defs = schema["properties"], schema["$defs"]
    nested = {key: name for key, rule in properties.items() if (name := _section(rule)) is not None}
    plain = {key: rule for key, rule in properties.items() if key not in (*SECTIONS, *nested)}
    parts = [HEAD]
    for key, intro in SECTIONS.items():
        parts.append(f"## `{key}:`\n\n{intro}\n")
        parts += [_table(f"### `{_first(defs[name])}`", defs[name]) for name in _options(properties[key], defs)]
    parts.append(_table("## Top keys", {"properties": plain}))
    parts += [_table(f"## `{key}:`", defs[name]) for key, name in nested.items()]
    return "\n".join(parts)


def _section(rule: dict[str, Any]) -> str | None:
    """The name of the model that a key holds, None for other keys."""
    return rule["$ref"].rpartition("/")[2] if "$ref" in rule else None


def _options(rule: dict[str, Any], defs: dict[str, Any]) -> list[str]:
    """The models that a union, or a mapping to one, is made of."""
    found: list[str] = []
    for part in (rule, rule.get("additionalProperties", {})):
        for option in [*part.get("anyOf", ()), *part.get("oneOf", ())]:
            found += [option["$ref"].rpartition("/")[2]] if "$ref" in option else _options(option, defs)
    return found


def _first(model: dict[str, Any]) -> str:
    """The key that tells a model of a union from the others."""
    return str(model["required"][0])


def _table(heading: str, model: dict[str, Any]) -> str:
    """A heading, what the model is, and a row for each key; the key that tells it from others comes first."""
    needed = model.get("required", [])
    keys = [*needed, *(key for key in model["properties"] if key not in needed)]
    rows = [_row(key, model["properties"][key], needed=key in needed) for key in keys]
    about = f"{model['description']}\n\n" if "description" in model else ""
    return (
        f"{heading}\n\n{about}| key | value | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _row(key: str, rule: dict[str, Any], *, needed: bool) -> str:
    default = "needed" if needed else _value(rule.get("default"))
    meaning = " ".join(rule.get("description", "").split()).replace("|", "\\|")
    return f"| `{key}` | {_kind(rule)} | {default} | {meaning} |"


def _value(value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    return f"`{shown}`"


def _kind(rule: dict[str, Any]) -> str:
    """What may stand there, in words."""
    if "anyOf" in rule:
        return " or ".join(dict.fromkeys(kind for kind in map(_kind, rule["anyOf"]) if kind != "nothing"))
    if "enum" in rule or "const" in rule:
        return ", ".join(f"`{value}`" for value in rule.get("enum", [rule.get("const")]))
    if rule.get("type") == "array":
        return f"list of {_kind(rule.get('items', {}))}"
    if rule.get("type") == "object":
        inner = rule.get("additionalProperties")
        return f"map to {_kind(inner)}" if isinstance(inner, dict) else "map"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "nothing",
    }
    kind = words.get(str(rule.get("type")), "anything")
    return "path" if rule.get("format") == "path" else kind


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
