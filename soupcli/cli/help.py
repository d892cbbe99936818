"""The help of `soup COMMAND --help`: options in groups, the most needed first, and examples.

A new option goes into one of GROUPS; tests/cli/test_help.py asks for it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

WIDEST = 120  # columns of a help text
GROUPS: dict[str, tuple[str, ...]] = {
    "To begin with": ("ckpts", "val", "metric", "out", "force", "recipe", "set", "dry-run", "help"),
    "Which checkpoints": (
        *("prefer", "last", "top", "by", "between", "every", "group-by", "weights-name", "key", "base"),
        *("include", "exclude", "take", "scores"),
    ),
    "How the soup is made": (
        *("strategy", "min-delta", "orders", "budget", "windows", "decay", "objective", "holdout", "speculate"),
        *(
            "early-stop",
            "logits",
            "with-uniform",
            "per",
            "groups",
            "constraint",
            "resident",
            "weights",
            "weights-for",
            "method",
        ),
        *("alpha", "any-weights", "scale", "recalibrate", "grid", "margin", "pairs", "seed", "save-logits"),
    ),
    "What is written": (
        *("dtype", "format", "max-shard-size", "card", "keep-state", "merge-adapters", "adapter-rank", "report"),
        *("report-to", "theme", "kind", "private", "revision"),
    ),
    "What is printed": ("json", "quiet", "output-format", "relative", "require-gain", "strict", "rebuild", "clear"),
    "How fast": (
        *("device", "batch-size", "workers", "jobs", "amp", "channels-last", "compile", "cache", "fresh", "flops"),
    ),
    "Other": ("trust", "trust-code", "allow-class"),
}


def group_of(flag: str) -> str:
    """Return the group of an option, by its first long name."""
    name = flag.removeprefix("--")
    return next((title for title, names in GROUPS.items() if name in names), "Other")


PLAIN = {"str>": "TEXT", "path>": "PATH", "int>": "N", "float>": "NUMBER"}  # how types of Python are shown


def in_groups(params: Sequence[Any], context: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Return title and rows of each group that is not empty, arguments first."""
    rows: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Arguments", *GROUPS)}
    for param in params:
        record = param.get_help_record(context)
        if record is not None:
            is_option = param.param_type_name == "option"
            title = group_of(max(param.opts, key=len)) if is_option else "Arguments"
            rows[title].append((_plainly(record[0], typed=is_option), record[1]))
    for title, found in rows.items():
        names = list(GROUPS.get(title, ()))
        if found:
            yield title, sorted(found, key=lambda record: _place(record[0], names))


def _plainly(shown: str, *, typed: bool) -> str:
    """Return how an option or argument is written, without types of Python; the name of an argument says enough."""
    name, angle, kind = shown.partition(" <")
    if not angle or not typed:
        return name
    return f"{name} {PLAIN.get(kind, '[' + kind.rstrip('>') + ']')}"


def _place(shown: str, names: Sequence[str]) -> int:
    """Return the place of an option in its group: the order is that of GROUPS, not of the options' classes."""
    flag = re.search(r"--([\w-]+)", shown)
    return names.index(flag[1]) if flag is not None and flag[1] in names else len(names)


class WholeLinesGroup(TyperGroup):
    """A group whose commands are described in whole sentences, in a terminal of any width."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes a row for each command. Typer cuts a sentence that does not fit into the line."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, (command.help or "").partition("\n\n")[0]) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def one_of(*words: str) -> dict[str, Any]:
    """Return the choices of an option for its help and for shell completion. The recipe checks the value."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return {"metavar": f"[{'|'.join(words)}]", "autocompletion": complete}


def names_in(table: str) -> Callable[[str], list[str]]:
    """Return the completion of the keys of a table, `module:NAME`, which is imported when the shell asks."""
    module, _, name = table.partition(":")

    def complete(incomplete: str) -> list[str]:
        return [key for key in getattr(importlib.import_module(module), name) if key.startswith(incomplete)]

    return complete


def sets_of_recipe(incomplete: str) -> list[str]:
    """Names of the sets of soup.yaml and paths that begin so, for the shell to complete."""
    names: list[str] = []
    try:
        lines = Path("soup.yaml").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    inside = False
    for line in lines:
        if re.match(r"\S", line):
            inside = line.startswith("val:")
        elif inside and (named := re.match(r"(?:  |\t)([\w.-]+):", line)):
            names.append(named[1])
    paths = sorted(f"{path}{'/' if path.is_dir() else ''}" for path in Path().glob(f"{incomplete or ''}*"))
    return [name for name in names if name.startswith(incomplete)] + paths
