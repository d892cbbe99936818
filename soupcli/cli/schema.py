"""`soup schema recipe|report`: JSON Schema of what people write and of what comes out."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from soupcli.cli import console


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("schema")(schema)


def schema(
    of: Annotated[Literal["recipe", "report"], typer.Argument(help="What to describe.", metavar="recipe|report")],
) -> None:
    """Print the JSON Schema of a recipe or of a report."""
    from soupcli.recipe.recipe import Recipe
    from soupcli.report.json_text import dump_json
    from soupcli.report.report import Report

    console.print_result(dump_json((Recipe if of == "recipe" else Report).model_json_schema(by_alias=True)))
