"""Files beside a checkpoint's weights that may list its classes.

files_of(checkpoint)                                    # {"label_encoder.pkl": Path("run/label_encoder.pkl")}
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.documents import (
    LINES,
    MLMODEL,
    OF_BYTES,
    OF_NAME,
    OF_TEXT,
    PARQUET,
    PYTHON,
    SETTINGS,
    TIMES,
    XML,
    may_list,
    most_of,
)
from soupcli.checkpoints.formats.class_lists import is_class_list, is_embedded_list, is_unread_list
from soupcli.checkpoints.formats.class_words import EMBEDDED, INPUTS
from soupcli.checkpoints.formats.name_lists import MOST
from soupcli.checkpoints.formats.setting_words import OF_STATISTICS
from soupcli.checkpoints.formats.statistics_files import is_statistics
from soupcli.checkpoints.shell_patterns import matches
from soupcli.checkpoints.side_files import TRAINING_FOLDERS, is_weights, leads_inside
from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soupcli.checkpoints.checkpoint import Checkpoint

MOST_FILES, MOST_BYTES = 200, 8_000_000  # of one checkpoint that are searched
# Files whose names are tokens, and one whose names are layers.
OTHERS = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "adapter_config")
WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
MOST_WEIGHTS = 4  # files of one run in a folder, such as its best and last; more are those of many runs
BELOW, MOST_BELOW = 3, 1000  # folders below that of the weights that are looked into, and entries of all of them
IN_RUN = re.compile(  # folders with a run's weights; one may lie in another, as save/CKPT+2024-01-01 of speechbrain
    r"(checkpoint|ckpt)s?([-_]?\d+|\+.+)?|(epoch|(global_)?step|iter)[-_=]?\d+([-_=].*)?|weights|exp|saves?|snapshots?"
    r"|((best|final|last|merged|trained)[_-]?)?(models?|checkpoint)",
    re.IGNORECASE,
)
MOST_ABOVE = 3  # folders of a run above that of the weights
DATA = re.compile(r"(meta(data)?|data(set)?)(_infos?)?")
OF_PART = re.compile(r"(train(ing)?|val(id|idation)?|dev|test|eval)[_-].*", re.IGNORECASE)  # files with its classes
DATA_OF_MLFLOW = "data"  # the folder with the weights, below that of the model
HYDRA = ".hydra/config.yaml"
OF_CVAT = "annotations.xml"
# Folders with classes of examples, not of rows.
OF_EXAMPLES = re.compile(
    r"(.*[_-])?(train(ing)?|val(id|idation)?|dev|test|eval\w*|splits?|folds?|oof|pred(ict(ion|ed))?s?|results?|outputs?"
    r"|images?|media|plots?|figures?|samples?)([_-]?\d+)?",
    re.IGNORECASE,
)


def files_of(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return side files, and others that may state classes whether or not a soup carries these on, by their labels.

    A label is the file's name. Beside a file of weights `*` stands for its own stem, and in a folder of many runs only
    lists of classes and settings of a training count. `../` is the folder of a run whose weights lie in `checkpoints/`
    or alike, `../../` that of one whose weights lie in `save/CKPT+1/`. Of folders below only lists of classes and
    descriptions of data count. `*` stands for the name of an experiment: of settings that are called as their folder,
    and of an only Python file.

    Links that lead out of their folder are none of them. Of very many files, lists of classes are the first that count,
    and Python files the last.
    """
    room = float(MOST_BYTES)
    kept: dict[str, Path] = {}
    read = ((label, file) for label, file in _candidates(checkpoint).items() if not is_unread_list(file.name))
    found = sorted(read, key=lambda one: (*_order(one[1].name), one[0]))
    for label, file in found[:MOST_FILES]:
        size = _size_of(file)
        if size <= min(room, most_of(file)):
            kept[label] = file
            room -= size * TIMES.get(file.suffix.lower(), 1)
    return dict(sorted(kept.items(), key=lambda one: (one[0].count("/"), one[0])))


def _order(name: str) -> tuple[bool, bool]:
    """Return a key that sorts lists of classes first, and Python files last."""
    return not may_list(name), name.endswith(PYTHON)


def unread(checkpoint: Checkpoint) -> dict[str, tuple[Path, str]]:
    """Return the files that may list classes and are not read, with why, by their labels."""
    candidates = _candidates(checkpoint).items()
    found = {label: file for label, file in candidates if may_list(file.name) or is_unread_list(file.name)}
    why = {label: (file, _why_unread(file)) for label, file in found.items()}
    return {label: (file, reason) for label, (file, reason) in why.items() if reason is not None}


def _why_unread(file: Path) -> str | None:
    size, most, suffix = _size_of(file), most_of(file), file.suffix.lower()
    if most < size < math.inf:
        return f"has more than {most} bytes"
    if is_unread_list(file.name) and size < math.inf:
        return f"is {suffix}, which is not read"
    if suffix == PARQUET and size < math.inf and find_spec("pyarrow") is None:
        return "is read with pyarrow, which is not installed"
    if 2 * MOST < size <= most and _entries_in(read_small(file, most=most)) > MOST:
        return f"has more than {MOST} entries"
    return None


def _entries_in(content: bytes) -> int:
    return max(content.count(b"\n"), content.count(b","))


def folders_of(checkpoint: Checkpoint) -> list[Path]:
    """Return the folder of the weights, and those above it up to that of the run: of `checkpoints/` or alike."""
    files = [file.path for file in checkpoint.files]
    folder = checkpoint.side_folder or (min(files).parent if files else None)
    found = [folder] if folder is not None else []
    while found and len(found) <= MOST_ABOVE and _is_in_run(found[-1]):
        found.append(found[-1].parent)
    return found


def _is_in_run(folder: Path) -> bool:
    of_mlflow = folder.name == DATA_OF_MLFLOW and (folder.parent / MLMODEL).is_file()
    return of_mlflow or IN_RUN.fullmatch(folder.name) is not None


def _candidates(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return the files, however many and large they are, by their labels."""
    weights = {file.path for file in checkpoint.files}
    found = {file.name: file for file in checkpoint.side_files}
    run = folders_of(checkpoint)
    if checkpoint.side_folder is not None:
        found |= _stating(checkpoint.side_folder)
    elif weights:
        found |= _beside_file(min(weights))
    for up, at in enumerate(run):
        stating = _stating(at) if up else {}
        below = _lists_below(at, run[max(up - 1, 0)])
        found |= {f"{'../' * up}{label}": file for label, file in (*stating.items(), *below)}
    settings = (above / HYDRA for above in run if not (above / HYDRA).parent.is_symlink())
    hydra = next((file for file in settings if file.is_file()), None)
    found |= {HYDRA: hydra} if hydra is not None else {}
    return {label: file for label, file in found.items() if _may_state(file.name) and file not in weights}


def _beside_file(weights: Path) -> dict[str, Path]:
    """Return the files in the folder that have the name of the weights, and those of the run that have no other's.

    `run_3_classes.json` is of `run_3.pt`, and not of `run.pt`.
    """
    folder = weights.parent
    by_owner, one_run = _files_by_owner(folder, weights.suffix.lower(), _time_of(folder))
    found = {f"*{file.name.removeprefix(weights.stem)}": file for file in by_owner.get(weights.stem, ())}
    return found | {file.name: file for file in by_owner.get("", ()) if one_run or _is_of_run(file)}


@lru_cache(maxsize=64)  # of many files of weights in one folder each asks
def _files_by_owner(folder: Path, suffix: str, _time: int) -> tuple[dict[str, list[Path]], bool]:
    """Return the files by the stem of the weights whose they are, "" of none, and whether all are of one run.

    `suffix` is that of weights. It is asked again if the folder's `_time` is another one.
    """
    entries = _entries(folder)
    stems = {file.stem for file in entries if file.suffix.lower() in (suffix, *WEIGHTS)}
    found: dict[str, list[Path]] = {}
    for file in entries:
        beginnings = {file.name[: mark.start()] for mark in re.finditer(r"[._-]", file.name)}
        found.setdefault(max(beginnings & stems, key=len, default=""), []).append(file)
    return found, len(stems) <= MOST_WEIGHTS


def _lists_below(folder: Path, weights: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files about classes in folders below, without those of other weights, of examples, and of `weights`."""
    waiting = deque((file, 1) for file in _folders_of(folder, _time_of(folder)) if file != weights)
    seen = 0
    while waiting and seen < MOST_BELOW:
        place, depth = waiting.popleft()
        entries = _first_entries(place, MOST_BELOW - seen)
        seen += 1 + len(entries)
        if any(is_weights(file.name) and not is_class_list(file.name) for file in entries):
            continue
        if depth < BELOW:
            waiting.extend((file, depth + 1) for file in _folders_of(place, _time_of(place)))
        for file in entries:
            known = any(words.fullmatch(file.stem) for words in (DATA, EMBEDDED, OF_STATISTICS))
            if (known or is_class_list(file.name)) and not OF_PART.fullmatch(file.stem):
                yield file.relative_to(folder).as_posix(), file


@lru_cache(maxsize=256)  # of many files of weights in one folder each asks
def _folders_of(folder: Path, _time: int) -> list[Path]:
    """Return what `_folders_in` does, which is asked again if the folder's `_time` is another one."""
    return _folders_in(folder)


def _folders_in(folder: Path) -> list[Path]:
    """Return the first folders in one that may hold files about classes."""
    names = filter(_may_hold_lists, folder_names(folder))
    return [folder / name for name in islice(names, MOST_BELOW)]


def folder_names(folder: Path) -> list[str]:
    """Return the names of the folders in one, in order, without links; none of what cannot be listed."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _may_hold_lists(folder: str) -> bool:
    return not (folder.startswith(".") or OF_EXAMPLES.fullmatch(folder) or matches(folder, TRAINING_FOLDERS))


def _time_of(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _entries(folder: Path) -> list[Path]:
    return [folder / name for name in _names_in(folder)]


def _first_entries(folder: Path, most: int) -> list[Path]:
    return [folder / name for name in _first_names(folder, most, _time_of(folder))]


@lru_cache(maxsize=256)  # a data set of 100,000 folders may lie beside the weights, and each checkpoint asks
def _first_names(folder: Path, most: int, _time: int) -> list[str]:
    return _names_in(folder)[:most]


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - a Path for each of very many files takes long
    except OSError:
        return []


def _stating(folder: Path) -> dict[str, Path]:
    """Return the files in a folder that may state classes: lists of classes, and the first others."""
    return _stating_at(folder, _time_of(folder))


@lru_cache(maxsize=64)
def _stating_at(folder: Path, _time: int) -> dict[str, Path]:
    names = [name for name in _names_in(folder) if _may_state(name)]
    lists = [name for name in names if may_list(name)]
    others = sorted({*names} - {*lists}, key=lambda name: (name.endswith(PYTHON), name))
    of_python = [name for name in others if name.endswith(PYTHON)]
    alone = of_python if len(of_python) == 1 and not SETTINGS.fullmatch(Path(of_python[0]).stem) else []
    of_experiment = {f"{folder.name}{suffix}" for suffix in OF_TEXT} | {*alone}
    named = ((f"*{Path(name).suffix}" if name in of_experiment else name, name) for name in others[:MOST_FILES])
    return {name: folder / name for name in lists} | {label: folder / name for label, name in named}


def _is_of_run(file: Path) -> bool:
    """Whether a file is a list of classes, or the settings of a training."""
    return is_class_list(file.name) or SETTINGS.fullmatch(file.stem) is not None


def _size_of(file: Path) -> float:
    """Return the bytes of a file; infinity if there is none, or for a link that leads out of its folder."""
    try:
        leads_out = file.is_symlink() and not leads_inside(file, file.parent)
        return math.inf if leads_out else file.stat().st_size
    except OSError:
        return math.inf


def _may_state(name: str) -> bool:
    """Whether a file may state classes or statistics by its name. Other pickles of torch are weights."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - see `_names_in`
    of_settings = suffix in OF_TEXT or suffix in OF_BYTES or suffix in LINES or name in OF_NAME
    # Other XML and archives are networks, annotations and arrays.
    known = may_list(name) or name == OF_CVAT if suffix in (XML, ".npz") else of_settings
    of_inputs = suffix in (".npz", PARQUET) and INPUTS.fullmatch(name.removesuffix(suffix)) is not None
    lists = is_class_list(name) or is_embedded_list(name) or is_unread_list(name) or of_inputs
    return (known or lists or is_statistics(name)) and not name.startswith(OTHERS)
