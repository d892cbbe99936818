"""Folders and files in which the library `datasets` keeps its data: recognised, and refused with the way out.

refuse_saved(Path("data/val"))      # raises ValidationError if datasets.save_to_disk wrote it
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soupcli.errors import ValidationError
from soupcli.files.json_text import parse_json
from soupcli.files.small_file import read_small

ARROW = ".arrow"
INFO, STATE, OF_SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
LARGEST = 4_000_000  # bytes of the description
LIKELY = ("validation", "val", "dev", "test")  # splits, the first that there is


def refuse_saved(path: Path) -> None:
    """Raises ValidationError if `path` is data of the library `datasets`, with code that makes a set of it."""
    what = f"{path}: data of the library datasets"
    if path.suffix == ARROW and path.is_file():
        raise ValidationError(what, hint=_way_out(path.parent, f"datasets.Dataset.from_file({str(path)!r})"))
    if (path / OF_SPLITS).is_file():
        splits = _read(path / OF_SPLITS).get("splits")
        names = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
        split = next((name for name in (*LIKELY, *names) if name in names), "validation")
        load = f"datasets.load_from_disk({str(path)!r})[{split!r}]"
        raise ValidationError(f"{what}, as save_to_disk writes it", hint=_way_out(path / split, load))
    if (path / STATE).is_file() and (path / INFO).is_file():
        load = f"datasets.load_from_disk({str(path)!r})"
        raise ValidationError(f"{what}, as save_to_disk writes it", hint=_way_out(path, load))


def _way_out(folder: Path, load: str) -> str:
    """Return code that saves what `load` gives as pictures in class folders, or as a table."""
    features = _read(folder / INFO).get("features")
    types = {
        str(name): str(feature.get("_type"))
        for name, feature in (features.items() if isinstance(features, dict) else ())
        if isinstance(feature, dict)
    }
    picture = next((name for name, kind in types.items() if kind == "Image"), None)
    if picture is None:
        return f"write a table: {load}.to_parquet('val.parquet'), then text: val.parquet"
    label = next((name for name, kind in types.items() if kind == "ClassLabel"), None)
    if label is None:
        save = f"row[{picture!r}].save('val/%d.png' % n)"
        return f"save its pictures: for n, row in enumerate({load}): {save}; then images: val with labels: FILE.csv"
    save = f"row[{picture!r}].save('val/%s/%d.png' % (names[row[{label!r}]], n))"
    return (
        f"save its pictures into class folders: data = {load}; names = data.features[{label!r}].names; "
        f"[os.makedirs('val/' + name, exist_ok=True) for name in names]; [{save} for n, row in enumerate(data)]; "
        "then images: val"
    )


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = parse_json(read_small(file, most=LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
