"""Task files of lm-evaluation-harness as data: what would run code of theirs is refused or shut in.

    refuse_code(Path("tasks"))                     # raises ValidationError for `!function` and its like
    with shut_in(harness_utils): ...               # templates of tasks reach nothing but their example

The harness imports the functions that a file names, of any module, loads metrics and data by scripts, and renders
Jinja templates that may call whatever Python holds. Tasks that are installed with the harness may do all of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from soupcli.environment import import_extra
from soupcli.errors import ValidationError
from soupcli.files.small_file import read_small

LARGEST = 4_000_000  # bytes of a task file
PLAIN = {
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge")
}
SWITCHES = ("hf_evaluate", "trust_remote_code", "unsafe_code")
OFF = ("false", "no", "off", "null", "~", "")
HINT = "--trust-code, if you wrote these files or have read them"


def refuse_code(folder: Path) -> None:
    """Raise ValidationError if a task file below the folder, or one that it includes, asks for code to be run."""
    installed = _place_of_harness()
    waiting = sorted(folder.glob("**/*.yaml"))  # as the harness finds them
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        place = file.resolve()
        if place in seen or place.is_relative_to(installed):
            continue
        seen.add(place)
        for key, node in _entries(_document(file)):
            _check(file, key, node)
            if key == "include":
                waiting += [file.parent / one.value for one in _scalars(node)]


def _place_of_harness() -> Path:
    """Return the folder of the installed harness, which is not imported: that takes seconds."""
    found = find_spec("lm_eval")
    place = found.origin if found is not None else None
    return Path(place or import_extra("lm_eval", extra="lm-eval").__file__).resolve().parent


def _document(file: Path) -> yaml.Node | None:
    """Return the file's nodes. Raises ValidationError for a file that cannot be looked into."""
    try:
        return yaml.compose(read_small(file, most=LARGEST), yaml.SafeLoader)
    except FileNotFoundError:
        return None  # the harness says so
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as cause:
        why = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise ValidationError(f"{file}: cannot be read as a task file: {why}", hint="mend it, or remove it") from cause


def _entries(document: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    """Yield each value with its key, "" for the document itself and for values of lists; anchors once."""
    waiting = [("", document)] if document is not None else []
    seen: set[int] = set()
    while waiting:
        key, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield key, node
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                waiting += [("", name), (str(name.value), value)]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(key, value) for value in node.value]


def _scalars(node: yaml.Node) -> list[yaml.ScalarNode]:
    parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return [one for one in parts if isinstance(one, yaml.ScalarNode)]


def _check(file: Path, key: str, node: yaml.Node) -> None:
    where, value = f"{file}:{node.start_mark.line + 1}", node.value if isinstance(node, yaml.ScalarNode) else ""
    if node.tag not in PLAIN:
        raise ValidationError(f"{where}: {key}: {node.tag} {value}: Python that it names would run", hint=HINT)
    if key == "class" or (key in SWITCHES and value.lower() not in OFF):
        raise ValidationError(f"{where}: {key}: {value}: asks for code to be run", hint=HINT)
    if key in ("metric", "dataset_path") and _is_script(value):
        raise ValidationError(f"{where}: {key}: {value}: is a script, which would run", hint=HINT)


def _is_script(name: str) -> bool:
    """Whether a metric or a data set of this name is Python: a file, or a folder with one of its own name."""
    path = Path(name)
    return path.suffix == ".py" or (bool(path.name) and (path / f"{path.name}.py").exists())


@contextmanager
def shut_in(utils: Any) -> Iterator[None]:
    """Let templates of tasks see only their example within the block, not what Python holds behind it."""
    before = utils.env
    utils.env = import_extra("jinja2.sandbox", extra="lm-eval").SandboxedEnvironment(
        loader=before.loader, undefined=before.undefined, keep_trailing_newline=before.keep_trailing_newline
    )
    utils.env.filters.update(before.filters)
    try:
        yield
    finally:
        utils.env = before
