"""Finds what looks like a validation set in a folder: pictures, tables, tensors, texts and functions that evaluate.

for name, found in sets_below(Path("."), runs=[Path("runs/a")], writes=False).items(): ...
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from soupcli.checkpoints.open import open_checkpoint
from soupcli.datasets.image_folders import SUFFIXES as PICTURES
from soupcli.datasets.image_folders import PictureFile
from soupcli.datasets.label_column import LABEL_COLUMNS, class_column, picture_column, with_header_row
from soupcli.datasets.picture_decoder import size_of
from soupcli.datasets.rows import READERS, Row, first_rows
from soupcli.errors import SoupError
from soupcli.files.small_file import read_small
from soupcli.metrics.direction import direction_of

LEVELS = 3  # of folders
MAX_LOOKED_AT = 2_000  # entries of a folder, so that the answer comes at once in any folder
MAX_SOURCE = 1_000_000  # bytes of a file of Python
TEXT_COLUMNS = ("text", "sentence", "sentence1", "premise", "question", "review", "content")
SECOND_COLUMNS = ("sentence2", "hypothesis", "text_pair")
NUMBER_COLUMNS = ("", "id", "idx", "index", "guid")
BITS = ("0", "1", "0.0", "1.0", "True", "False")
LEAST_TEXT = 2_000  # bytes of a text: lists of names are shorter
SAMPLED = 5  # pictures of a set whose sizes are read


class FoundSet(NamedTuple):
    """A set as the recipe has it, the metric of its labels, and a remark for whoever reads the recipe."""

    spec: dict[str, object]
    metric: str = "accuracy"
    remark: str | None = None


def sets_below(folder: Path, *, runs: Collection[Path], writes: bool) -> dict[str, FoundSet]:
    """Return what looks like a validation set, up to three folders down and outside of `runs`, by name.

    `writes` says that the network is a causal language model, for which a text is a set.
    """
    entries = [entry for entry in _entries(folder) if not any(entry.is_relative_to(run) for run in runs)]
    sets: dict[str, FoundSet] = {}
    for entry in (entry for entry in entries if entry.is_file()):
        for name, found in _of_file(folder, entry, writes=writes):
            sets.setdefault(name, found)
    tabled = {folder / str(found.spec["images"]) for found in sets.values() if "images" in found.spec}
    for entry in (entry for entry in entries if entry.is_dir()):
        if not any(entry.is_relative_to(of_table) or of_table.is_relative_to(entry) for of_table in tabled):
            pictures = _class_folders(folder, entry)
            if pictures is not None:
                sets.setdefault(entry.name, pictures)
    order = sorted(sets, key=lambda name: ("val" not in name and "dev" not in name, name))
    return {name: sets[name] for name in order if "train" not in name} or sets


def _entries(folder: Path) -> list[Path]:
    """Return files and folders up to three folders down, sorted; of very many those that are nearest."""
    found: list[Path] = []
    level = [folder]
    for _ in range(LEVELS):
        below = chain.from_iterable(map(_listed, level))
        level = list(islice(below, MAX_LOOKED_AT - len(found)))
        found += level
    return sorted(found)


def _listed(folder: Path) -> Iterator[Path]:
    """Yield the entries of a folder as the system lists them; none if it is a file or may not be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        yield from (folder / entry.name for entry in entries)


def _of_file(folder: Path, file: Path, *, writes: bool) -> Iterable[tuple[str, FoundSet]]:
    shown = str(file.relative_to(folder))
    if file.suffix == ".py":
        return _functions(file, shown) if file.parent == folder else ()
    found = None
    if file.suffix == ".safetensors":
        found = _tensors(file, shown)
    elif file.suffix == ".txt" and writes and file.stat().st_size >= LEAST_TEXT:
        found = FoundSet({"tokens": shown}, "perplexity")
    elif file.suffix in READERS:
        rows = first_rows(file)
        found = _pictures_of_table(folder, file, rows) or _sentences(shown, rows)
    return [(file.stem, found)] if found is not None else ()


def _class_folders(folder: Path, entry: Path) -> FoundSet | None:
    below = (path for path in islice(entry.glob("*/*"), MAX_LOOKED_AT) if path.suffix.lower() in PICTURES)
    pictures = sorted(below)
    if not pictures:
        return None
    return FoundSet({"images": str(entry.relative_to(folder))}, remark=_size_remark(pictures))


def _size_remark(pictures: list[Path]) -> str | None:
    """Return what to add if the network was trained on pictures of another size than its library's."""
    sizes = {size_of(PictureFile(path)) for path in pictures[:: max(1, len(pictures) // SAMPLED)]}
    if len(sizes) > 1 or None in sizes:
        return None
    [(height, width)] = [size for size in sizes if size is not None]
    wanted = f"{height}" if height == width else f"[{height}, {width}]"
    return f"pictures of {height} x {width}: size: {wanted} if they went into training like that"


def _tensors(file: Path, shown: str) -> FoundSet | None:
    try:
        tensors = open_checkpoint(file).tensors
    except SoupError:
        return None
    if set(tensors) != {"inputs", "labels"}:
        return None
    labels = tensors["labels"]
    numbers = "mse" if labels.dtype.value.startswith(("F", "BF")) else "accuracy"  # as arrays.py reads them
    return FoundSet({"arrays": shown}, metric="map" if len(labels.shape) == 2 else numbers)


def _bits(rows: Sequence[Row], besides: Collection[str]) -> list[str]:
    """Return the columns that have nothing but 0 and 1 in these rows."""
    columns = [name for name in rows[0] if name not in besides and name.lower() not in NUMBER_COLUMNS]
    return [name for name in columns if all(str(row.get(name)).strip() in BITS for row in rows)]


def _pictures_of_table(folder: Path, file: Path, rows: Sequence[Row]) -> FoundSet | None:
    """Return the pictures that a table names, by paths from its own folder or from one beside it."""
    if not rows:
        return None
    rows = with_header_row(rows)
    names = picture_column(rows[0])
    paths = _paths(file, [str(row.get(names)) for row in rows])
    if paths is None:
        return None
    top = Path(os.path.commonpath([path.parent for path in paths]))
    spec: dict[str, object] = {"images": str(top.relative_to(folder)), "labels": str(file.relative_to(folder))}
    others = [name for name in rows[0] if name != names]
    column = next((name for name in others if name.lower() in LABEL_COLUMNS), None)
    column = column or class_column(rows, others, chosen=False)
    labels = [column] if column else _bits(rows, [names])
    if not labels:
        return None
    if len(labels) < len(others):
        spec["label"] = labels
    return FoundSet(spec, "accuracy" if column else "map", _size_remark(paths))


def _paths(file: Path, names: list[str]) -> list[Path] | None:
    """Return the pictures' paths, from the table's folder, one of its own name, or another one beside it."""
    if not all(Path(name).suffix.lower() in PICTURES for name in names):
        return None
    beside = [entry for entry in sorted(file.parent.iterdir())[:MAX_LOOKED_AT] if entry.is_dir()]
    for base in (file.parent, file.with_suffix(""), *beside):
        if all((base / name).is_file() for name in names):
            return [base / name for name in names]
    return None


def _sentences(shown: str, rows: Sequence[Row]) -> FoundSet | None:
    if not rows:
        return None
    columns = list(rows[0])
    inputs = [next((name for name in names if name in columns), None) for names in (TEXT_COLUMNS, SECOND_COLUMNS)]
    label: str | list[str] | None = next((name for name in LABEL_COLUMNS if name in columns), None)
    classes = _bits(rows, [name for name in inputs if name])
    others = [name for name in columns if name != label and name.lower() not in NUMBER_COLUMNS]
    if label is None and len(classes) > 1:
        label, others = classes, [name for name in others if name not in classes]
    if inputs[0] is None and label is not None and len(others) == 1:
        inputs[0] = others[0]
    if label is None or inputs[0] is None:
        return None
    spec: dict[str, object] = {"text": shown, "input": [name for name in inputs if name], "label": label}
    if isinstance(label, list):
        return FoundSet(spec, metric="map")
    measured = any(re.fullmatch(r"-?\d+\.\d*[1-9]\d*", str(row.get(label)).strip()) for row in rows)
    return FoundSet(spec, metric="spearman" if measured else "accuracy")


def _functions(file: Path, shown: str) -> Iterable[tuple[str, FoundSet]]:
    """Yield the functions of (model, device), which evaluate a network."""
    try:
        module = ast.parse(read_small(file, most=MAX_SOURCE))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return
    for one in module.body:
        if isinstance(one, ast.FunctionDef) and _evaluates(one):
            spec: dict[str, object] = {"python": f"{shown}:{one.name}"}
            remark = "its result: {metric: value}, of which metric: names the one that selects; or it yields booleans"
            known = direction_of(one.name) is not None
            yield one.name, FoundSet({**spec, "metric": one.name} if known else spec, remark=None if known else remark)


def _evaluates(function: ast.FunctionDef) -> bool:
    """Whether a function takes (model, device) and returns something, and does not train, by its name."""
    results = (ast.Return, ast.Yield, ast.YieldFrom)
    returns = any(isinstance(one, results) and one.value is not None for one in ast.walk(function))
    takes = [one.arg for one in function.args.args] == ["model", "device"]
    return takes and returns and not re.search("train|fit|build|load", function.name)
