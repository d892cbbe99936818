"""Options of the commands that take no --ckpts: they read reports, soups or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from soupcli.cli.options.common import AllowClass, ReportFiles, Trust, TrustCode, WeightsName


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """Options of `soup init`."""

    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Recipe file to write.")] = Path("soup.yaml")
    force: Annotated[bool, typer.Option("--force", help="Replace an existing recipe.")] = False


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Options of `soup plot`."""

    reports: ReportFiles
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output picture, .png or .svg; several pictures get their own names.")
    ] = Path("plot.png")
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="NAME", help="Figure to draw (default: all that the reports allow). Repeatable."
        ),
    ] = None
    theme: Annotated[Literal["light", "dark"], typer.Option("--theme", help="Color theme.")] = "light"
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not list figures that cannot be drawn.")] = False


@dataclass(frozen=True, kw_only=True)
class ReportPageOptions:
    """Options of `soup report`."""

    reports: ReportFiles
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .html, or .md for Markdown.")] = Path(
        "report.html"
    )


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of `soup verify`."""

    soup: Annotated[Path, typer.Argument(help="Folder of a soup, or its soup.json.", metavar="SOUP")]
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Mix it again in a temporary folder and compare the bytes.")
    ] = False
    weights_name: WeightsName = None
    trust: Trust = False
    trust_code: TrustCode = False
    allow_class: AllowClass = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only checks that failed.")] = False


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Options of `soup push`."""

    soup: Annotated[Path, typer.Argument(help="Folder of a soup, or its soup.json.", metavar="SOUP")]
    to: Annotated[str, typer.Argument(help="The model on the Hub: org/name.", metavar="ORG/NAME")]
    private: Annotated[bool, typer.Option("--private", help="Make a new model private.")] = False
    revision: Annotated[str | None, typer.Option("--revision", help="Branch to write to; created if missing.")] = None
    force: Annotated[bool, typer.Option("--force", help="Push even if the model holds other files.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the commit as one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the commit's address.")] = False


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Options of `soup cache`."""

    kinds: Annotated[
        list[str] | None,
        typer.Argument(help="Only these: scores, fits, inputs, contents, hashes, candidates or demo.", metavar="KIND"),
    ] = None
    clear: Annotated[bool, typer.Option("--clear", help="Remove what is kept.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and sizes as one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the folder.")] = False


@dataclass(frozen=True, kw_only=True)
class SchemaOptions:
    """Options of `soup schema`."""

    of: Annotated[Literal["recipe", "report"], typer.Argument(help="What to describe.", metavar="recipe|report")]


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of `soup demo`."""

    words: Annotated[
        list[str] | None,
        typer.Argument(help="digits (default), text or images, then the folder to write.", metavar="KIND|DIR"),
    ] = None
    seed: Annotated[int, typer.Option("--seed", help="Seed of the data splits and of training.")] = 0
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the folder.")] = False
