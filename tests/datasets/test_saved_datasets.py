"""Data that the library `datasets` keeps is refused with code that saves it as a set."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from soupcli.datasets.image_folders import find
from soupcli.datasets.rows import read_rows
from soupcli.datasets.saved_datasets import refuse_saved
from soupcli.errors import ValidationError

IMAGE, CLASS = {"_type": "Image"}, {"_type": "ClassLabel", "names": ["cat", "dog"]}
TEXT = {"_type": "Value", "dtype": "string"}


def saved(folder: Path, features: dict[str, object]) -> Path:
    """A folder with the files of datasets' save_to_disk, but for the data."""
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    (folder / "state.json").write_text("{}")
    (folder / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    return folder


def hint_of(path: Path) -> str:
    with pytest.raises(ValidationError, match="data of the library datasets") as raised:
        refuse_saved(path)
    assert raised.value.hint is not None
    return raised.value.hint


def test_ways_out(tmp_path: Path) -> None:
    """Pictures become class folders, all else a table; of several splits one for validation is taken."""
    pictures = saved(tmp_path / "pictures", {"image": IMAGE, "label": CLASS})
    assert hint_of(pictures).startswith(
        f"save its pictures into class folders: data = datasets.load_from_disk('{pictures}');"
    )
    assert hint_of(saved(tmp_path / "plain", {"img": IMAGE})).startswith("save its pictures: for n, row in enumerate(")
    texts = saved(tmp_path / "texts" / "test", {"text": TEXT, "label": CLASS})
    table = ".to_parquet('val.parquet'), then text: val.parquet"
    assert hint_of(texts) == f"write a table: datasets.load_from_disk('{texts}'){table}"
    (tmp_path / "texts/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert hint_of(tmp_path / "texts") == f"write a table: datasets.load_from_disk('{tmp_path}/texts')['test']{table}"
    arrow = texts / "data-00000-of-00001.arrow"
    assert hint_of(arrow) == f"write a table: datasets.Dataset.from_file('{arrow}'){table}"
    (texts / "dataset_info.json").write_text("[")
    assert hint_of(texts).startswith("write a table")


def test_where_sets_are_read(tmp_path: Path) -> None:
    """Sets of pictures and of rows say so; other folders are none."""
    folder = saved(tmp_path / "a", {"image": IMAGE})
    with pytest.raises(ValidationError, match="save_to_disk"):
        find(folder)
    with pytest.raises(ValidationError, match="save_to_disk"):
        read_rows(folder, ())
    (folder / "state.json").unlink()
    refuse_saved(folder)
    refuse_saved(tmp_path / "absent")


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hints say makes sets of real data of the library."""
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    names = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({"image": datasets.Image(), "label": names})
    rows = {"image": [image.new("RGB", (4, 4)) for _ in range(3)], "label": [1, 0, 1]}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).save_to_disk("pictures")
    _, _, code = hint_of(Path("pictures")).partition("folders: ")
    exec(code.removesuffix("; then images: val"), {"datasets": datasets, "os": os})
    assert [(picture.name, name) for picture, name in find(Path("val")).pictures] == [
        ("1.png", "cat"),
        ("0.png", "dog"),
        ("2.png", "dog"),
    ]
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).save_to_disk("texts")
    _, _, code = hint_of(Path("texts")).partition("table: ")
    exec(code.removesuffix(", then text: val.parquet"), {"datasets": datasets})
    assert [row["text"] for row in read_rows(Path("val.parquet"), ("text", "label"))] == ["a", "b"]
