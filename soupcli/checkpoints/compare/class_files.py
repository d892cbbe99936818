"""Files beside a checkpoint's weights that may list its classes, as documents.

files_of(checkpoint)                                    # [Path("run/config.json"), Path("run/label_encoder.pkl")]
document_of(Path("run/label_encoder.pkl"))              # {"classes_": ["cat", "dog"]}
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import yaml

from soupcli.checkpoints.formats.class_lists import is_class_list, rows_of_pbtxt, rows_of_text
from soupcli.checkpoints.formats.numpy_names import plain, read_npy, read_pickle
from soupcli.checkpoints.formats.torch_archives import read_object
from soupcli.errors import CheckpointError
from soupcli.files.json_text import parse_json
from soupcli.files.reading import FileVersion
from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

MAX_BYTES = 4_000_000  # of a list of classes, or of config.json
MAX_SETTINGS = 200_000  # bytes of other files that are searched for classes
MAX_YAML = 65_536  # bytes: a thousand classes, as YOLO lists ImageNet's, take 45,000
CONFIG = "config.json"
DEEPEST = 30  # levels of YAML, whose reader would overflow the stack
# Files whose names are tokens, and one whose names are layers.
OTHERS = ("tokenizer", "vocab", "special_tokens", "added_tokens", "adapter_config")
WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
IN_RUN = re.compile(r"checkpoints?(-\d+)?|ckpts?|weights|models?", re.IGNORECASE)  # folders with a run's weights
SETTINGS = re.compile(r"(model|train(ing)?)?[_-]?(config|args|h?params|opts?|options|settings)|meta(data)?|data(set)?")
HYDRA = ".hydra/config.yaml"
FRONT_MATTER = re.compile(r"\A---\s*\n(.*?\n)---\s*$", re.DOTALL | re.MULTILINE)


def files_of(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return side files, and others that may state classes whether or not a soup carries these on, by their labels.

    A label is the file's name. Beside a file of weights `*` stands for its own stem, and of other settings only those
    of a training count. `../` is the folder of a run whose weights lie in `checkpoints/` or alike.
    """
    weights = {file.path for file in checkpoint.files}
    folder = checkpoint.side_folder
    found = {file.name: file for file in (*checkpoint.side_files, *_entries(folder)) if _may_state(file)}
    if folder is None and weights:
        own = min(weights)
        folder = own.parent
        stems = {file.stem for file in _entries(folder) if file.suffix.lower() in WEIGHTS} - {own.stem}
        for file in _entries(folder):
            is_own = file.name.startswith(tuple(own.stem + mark for mark in "._-"))
            if _may_state(file) and (is_own or (_is_of_run(file) and not file.name.startswith(tuple(stems)))):
                found.setdefault(f"*{file.name.removeprefix(own.stem)}" if is_own else file.name, file)
    for above in () if folder is None else (folder, folder.parent)[: 1 + bool(IN_RUN.fullmatch(folder.name))]:
        hydra = above / HYDRA
        if hydra.is_file():
            found.setdefault(HYDRA, hydra)
        if above is not folder:
            found |= {f"../{file.name}": file for file in _entries(above) if _may_state(file) and _is_of_run(file)}
    return {label: file for label, file in sorted(found.items()) if file not in weights}


def _entries(folder: Path | None) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder is not None else []
    except OSError:
        return []


def _is_of_run(file: Path) -> bool:
    """Whether a file is a list of classes, or the settings of a training."""
    return is_class_list(file.name) or SETTINGS.fullmatch(file.stem) is not None


def document_of(file: Path) -> Any:
    """Return what a file says as lists, maps and text, or None if it cannot be read, which whoever needs it says."""
    suffix = file.suffix.lower()
    is_list = is_class_list(file.name)
    most = MAX_YAML if suffix in YAML else MAX_BYTES if is_list or file.name == CONFIG else MAX_SETTINGS
    try:
        content = read_small(file, most=most)
        if suffix in OF_BYTES:
            return OF_BYTES[suffix](content)
        if suffix in OF_TORCH:
            return plain(read_object(FileVersion.of(file)).content)
        return OF_TEXT.get(suffix, rows_of_text)(content.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError, TypeError, AttributeError, yaml.YAMLError, CheckpointError):
        return None


def _may_state(file: Path) -> bool:
    """Whether a file may state classes by its name. Pickles of torch are weights, but for lists of classes."""
    suffix, is_list = file.suffix.lower(), is_class_list(file.name)
    known = suffix in OF_TEXT or suffix in OF_BYTES or suffix in LINES
    return (known or is_list) and not file.name.startswith(OTHERS)


def _of_yaml(content: str) -> Any:
    """Return the document with every scalar as text. Raises ValueError before it would recurse without end."""
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # joins no mappings
    depth = 0
    for event in yaml.parse(content, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
    return yaml.load(content, loader)


def _of_front_matter(content: str) -> Any:
    """Return the YAML at the top of a README."""
    found = FRONT_MATTER.search(content)
    return _of_yaml(found[1]) if found is not None and len(found[1]) <= MAX_YAML else None


YAML = (".yaml", ".yml")
LINES = (".txt", ".names", ".csv", ".tsv", ".lst", ".list")
OF_TORCH = (".pt", ".pth")
OF_TEXT: dict[str, Callable[[str], Any]] = {
    ".json": parse_json,
    ".yaml": _of_yaml,
    ".yml": _of_yaml,
    ".toml": tomllib.loads,
    ".md": _of_front_matter,
    ".pbtxt": rows_of_pbtxt,
}
OF_BYTES: dict[str, Callable[[bytes], Any]] = {
    ".npy": read_npy,
    ".pkl": read_pickle,
    ".pickle": read_pickle,
    ".joblib": read_pickle,
}
