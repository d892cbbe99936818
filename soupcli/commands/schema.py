"""`soup schema recipe|report`: JSON Schema of what people write and of what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.cli.parsing import DONE, Invocation
from soupcli.files.json_text import dump_json
from soupcli.output import console
from soupcli.recipe.recipe import Recipe
from soupcli.recipe.schema import json_schema
from soupcli.report.report import Report

if TYPE_CHECKING:
    from soupcli.cli.options.without_checkpoints import SchemaOptions


def schema(options: SchemaOptions, _invocation: Invocation) -> int:
    """Print the JSON Schema of a recipe or of a report."""
    model = Recipe if options.of == "recipe" else Report
    console.print_json(dump_json(json_schema(model)))
    return DONE
