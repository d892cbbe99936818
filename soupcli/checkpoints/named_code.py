"""Finds the Python files of a folder that a configuration in it names: a soup carries these on, and no others.

named_code([Path("run/config.json")], {"net.py": Path("run/net.py")})   # {"net.py"}, if its auto_map names net.Net
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from soupcli.files.json_text import parse_json
from soupcli.files.small_file import read_small

LARGEST = 1 << 26  # bytes of a file of code
MAX_JSON = 10_000_000  # bytes of a configuration that is searched for names of code


GENERATE = "custom_generate."  # the folder with the code that transformers' generate() takes from a model's folder
RELATIVE_IMPORT = re.compile(
    rb"^[ \t]*from[ \t]+(\.+)[ \t]*([\w.]*)[ \t]+import[ \t]*(?:\(([\w\s,]*)|([\w \t,]*))", re.MULTILINE
)
COMMENT = re.compile(rb"#[^\n]*")


def named_code(files: Sequence[Path], code: Mapping[str, Path]) -> set[str]:
    """Return the Python files that a configuration names as `file.Class`, `custom_generate/`, and what they import.

    `code` are all Python files by their paths below the folder, with `/`.
    """
    by_module = {name.removesuffix(".py").replace("/", "."): name for name in code}
    waiting = [module for file in files for module in _modules_of(file)] if by_module else []
    waiting += [module for module in by_module if module.startswith(GENERATE)]
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        name = by_module.get(module)
        if name is None or name in found:
            continue
        found.add(name)
        waiting += _imported(code[name], module.split(".")[:-1])
    return found


def _modules_of(file: Path) -> Iterator[str]:
    """Return the modules in text values `module.Class` and `module` anywhere in a JSON file.

    In model_index.json of diffusers `"unet": ["my_unet", "MyUNet"]` is `unet/my_unet.py`.
    """
    if file.suffix != ".json":
        return
    try:
        waiting: list[Any] = [parse_json(read_small(file, most=MAX_JSON))]
    except (OSError, ValueError, RecursionError):
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
            pairs = ((key, one[0]) for key, one in value.items() if isinstance(one, list) and one)
            yield from (f"{key}.{module}" for key, module in pairs if isinstance(module, str) and len(module) < 200)
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and len(value) < 200:
            name = value.rpartition("--")[2]
            yield from (name.replace("/", "."), name.rpartition(".")[0].replace("/", "."))


def _imported(file: Path, package: Sequence[str]) -> Iterator[str]:
    """Yield the modules that a Python file in `package` may import from there, from above and from below it."""
    yield from (".".join([*package[:depth], "__init__"]) for depth in range(1, len(package) + 1))
    try:
        content = COMMENT.sub(b"", read_small(file, most=LARGEST)).replace(b"\\\n", b" ")
    except OSError:
        return
    for dots, name, *listed in RELATIVE_IMPORT.findall(content):
        above = len(dots) - 1
        if above > len(package):
            continue
        base = [*package[: len(package) - above], *filter(None, name.decode().split("."))]
        names = [each.split()[0] for each in b"".join(listed).decode().split(",") if each.split()]
        yield from (".".join([*base, *more]) for more in ([], ["__init__"], *([one] for one in names)))
