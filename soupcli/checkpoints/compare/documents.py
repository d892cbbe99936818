"""What the files beside a checkpoint's weights say, as lists, maps and text.

document_of(Path("run/label_encoder.pkl"))              # {"classes_": ["cat", "dog"]}
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import yaml

from soupcli.checkpoints.formats.class_lists import is_class_list
from soupcli.checkpoints.formats.class_texts import rows_of_pbtxt, rows_of_table, rows_of_text
from soupcli.checkpoints.formats.numpy_names import plain, read_npy, read_npz, read_pickle
from soupcli.checkpoints.formats.python_settings import of_python
from soupcli.checkpoints.formats.statistics_files import is_statistics
from soupcli.checkpoints.formats.text_documents import (
    of_front_matter,
    of_ini,
    of_mlmodel,
    of_params,
    of_toml,
    of_xml,
    of_yaml,
)
from soupcli.checkpoints.formats.torch_archives import read_object
from soupcli.errors import CheckpointError, MissingExtra, ValidationError
from soupcli.files.gzip_files import read_unpacked, unpacked_name
from soupcli.files.json_text import parse_json
from soupcli.files.letters import decoded
from soupcli.files.parquet import read_columns
from soupcli.files.reading import FileVersion

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 4_000_000  # of a file that lists classes
MAX_SETTINGS = 200_000  # bytes of others that are searched for classes
# Bytes of YAML: a megabyte takes a third of a second, and ten times as long without libyaml.
MAX_YAML, MAX_YAML_SETTINGS = 1_000_000 if hasattr(yaml, "CBaseLoader") else 65_536, 65_536
QUICK = 10_000  # bytes that are read again rather than remembered
SETTINGS = re.compile(
    r"(model|train(ing)?)?[_-]?(config|args|h?params|opts?|options|settings)|(meta(data)?|data(set)?)(_infos?)?"
)


OF_LINES = re.compile(r"((model|train(ing)?)[_-])?(config|args|h?params|opts?|options|settings)\.txt")


def document_of(file: Path) -> Any:
    """Return what a file says as lists, maps and text, or None if it cannot be read, which whoever needs it says."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return _remembered_document(file, stat.st_size, stat.st_mtime_ns) if stat.st_size > QUICK else _document(file)


@lru_cache(maxsize=4)  # what compares classes, inputs and settings of two checkpoints asks in turn
def _remembered_document(file: Path, _size: int, _time: int) -> Any:
    return _document(file)


def _document(file: Path) -> Any:
    suffix = os.path.splitext(unpacked_name(file.name))[1].lower()  # noqa: PTH122 - see `may_list`
    try:
        content = read_unpacked(file, most=most_of(file))
        if suffix == PARQUET:
            header, columns = zip(*read_columns(file, most=MOST_VALUES).items(), strict=True)
            texts = [list(map(str, column)) for column in columns]
            return texts[0] if len(texts) == 1 else rows_of_table(header, texts)
        if suffix in OF_BYTES:
            return OF_BYTES[suffix](content)
        if suffix in OF_TORCH:
            return plain(read_object(FileVersion.of(file)).content)
        text = decoded(content)
        if is_settings_text(file.name):
            return of_params(text)
        return (OF_NAME.get(file.name) or OF_TEXT.get(suffix, rows_of_text))(text)
    except (OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
        return None  # of whatever a stranger has written
    except (CheckpointError, ValidationError, MissingExtra):
        return None


def is_settings_text(name: str) -> bool:
    """Whether a file of this name holds settings in lines, such as args.txt and train_opt.txt."""
    return OF_LINES.fullmatch(name) is not None


def may_list(name: str) -> bool:
    """Whether a file may list all classes, by its name. If it is too large to be read, that is said."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path for each of very many files takes long
    states = SETTINGS.fullmatch(stem) is not None and suffix.lower() not in (*LINES, PYTHON)
    return is_class_list(name) or states or suffix.lower() == ".pbtxt"


def most_of(file: Path) -> int:
    """Return the most bytes of a file of this name that is read."""
    if file.suffix.lower() in YAML:
        return MAX_YAML if may_list(file.name) else MAX_YAML_SETTINGS
    return MAX_BYTES if may_list(file.name) or is_statistics(file.name) else MAX_SETTINGS


def _of_assignments(content: str) -> Any:
    """Return what lines of a name, an equals sign and a value say, or numbered lines."""
    return rows_of_text(content) if content[:1].isdigit() else of_params(content)


MLMODEL = "MLmodel"
PARQUET, XML = ".parquet", ".xml"
MOST_VALUES = 500_000  # of a table of parquet: the longest list of names, with what is beside each
YAML, PYTHON = (".yaml", ".yml"), ".py"
TIMES = {".yaml": 5, ".yml": 5, PYTHON: 8}  # as long as JSON takes
LINES = (".txt", ".jsonl", ".names", ".csv", ".tsv", ".lst", ".list", ".dict")
OF_TORCH = (".pt", ".pth")
OF_TEXT: dict[str, Callable[[str], Any]] = {
    ".json": parse_json,
    ".jsonl": lambda content: [parse_json(line) for line in content.split("\n") if line.strip()],
    ".yaml": of_yaml,
    ".yml": of_yaml,
    ".toml": of_toml,
    ".ini": of_ini,
    ".cfg": of_ini,
    **dict.fromkeys((".properties", ".env", ".conf"), _of_assignments),
    ".md": lambda content: of_front_matter(content[:MAX_YAML_SETTINGS]),
    ".pbtxt": rows_of_pbtxt,
    PYTHON: of_python,
    XML: of_xml,
}
# Files that are told by their whole name: of MLflow, and of an agent of stable-baselines3.
OF_NAME: dict[str, Callable[[str], Any]] = {MLMODEL: of_mlmodel, "data": parse_json}
OF_BYTES: dict[str, Callable[[bytes], Any]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".pkl": read_pickle,
    ".pickle": read_pickle,
    ".joblib": read_pickle,
}
