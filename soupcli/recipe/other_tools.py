"""Whose file it is, if a recipe is refused: other tools call theirs soup.yaml too, or theirs are handed to us.

A file is looked at only once it was refused, so no recipe of ours is ever taken for another's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from soupcli.files.small_file import read_start
from soupcli.recipe.recipe import Recipe

MOST_BYTES = 1_000_000
OURS = "soup init --out recipe.yaml writes a recipe of this program, --recipe recipe.yaml names it"
_TOP_KEY = re.compile(r"""^["']?(\w+)["']?\s*:(?:\s|$)""", re.MULTILINE)


class OtherTool(NamedTuple):
    """A tool, keys that together are the mark of its files, and what its user may be after."""

    name: str
    keys: frozenset[str]
    advice: str


def _tool(name: str, keys: str, advice: str = "") -> OtherTool:
    return OtherTool(name, frozenset(keys.split()), advice)


_MERGEKIT = (
    "mergekit-yaml runs it. Its `linear` is `soup mix --ckpts A B --weights 0.7,0.3`, "
    "its `model_stock` is `soup mix --method stock --base BASE`"
)
_SOUP_CLI = "soup-cli trains with it (pip install soup-cli; its command is called soup as well)"
_TRAINED = "what that training wrote is what this program mixes: soup rank --ckpts 'runs/*/'"
TOOLS = (
    _tool("mergekit", "merge_method", _MERGEKIT),
    _tool("mergekit", "models parameters", _MERGEKIT),
    _tool("mergekit", "slices", _MERGEKIT),
    _tool("mergekit-moe", "experts", "mergekit-moe runs it"),
    _tool("soup-cli", "base data", _SOUP_CLI),
    _tool("soup-cli", "base training", _SOUP_CLI),
    _tool("conda", "dependencies channels", "conda env create --file runs it"),
    _tool("conda", "dependencies name", "conda env create --file runs it"),
    _tool("Docker Compose", "services", "docker compose --file runs it"),
    _tool("GitHub Actions", "jobs", "it belongs into .github/workflows/"),
    _tool("Kubernetes", "apiVersion kind"),
    _tool("accelerate", "distributed_type", "accelerate launch --config_file takes it"),
    _tool("axolotl", "base_model datasets", _TRAINED),
    _tool("LLaMA-Factory", "model_name_or_path", _TRAINED),
    _tool("timm's train.py", "opt sched", _TRAINED),
    _tool("Ultralytics", "names train", "of such sets Ultralytics' own val() is the score: a python: set"),
    _tool("Ultralytics", "task imgsz", _TRAINED),
    _tool("Lightning", "trainer", _TRAINED),
    _tool("the lm-evaluation-harness", "output_type doc_to_text", "a set `{lm_eval: TASK}` names its task"),
)
SHARED = frozenset(
    {"base", "model", "dtype", "out", "device", "workers", "batch_size", "metric", "val", "amp", "format"}
)


def tool_of(file: Path) -> OtherTool | None:
    """Return the tool whose file it is, or None if that is unknown, or if it has keys that only recipes have."""
    try:
        text = read_start(file, MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    keys = set(_TOP_KEY.findall(text))
    if keys & (Recipe.model_fields.keys() - SHARED):
        return None
    return next((tool for tool in TOOLS if tool.keys <= keys), None)
