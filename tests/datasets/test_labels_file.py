"""Labels from a file: none, one or several for each picture, held against timm's ReaL evaluator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from timm.data import RealLabelsImagenet

from soupcli.datasets import labels_file
from soupcli.errors import ValidationError
from soupcli.metrics.table import METRICS


def written(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "real.json"
    file.write_text(json.dumps(content))
    return file


def test_equals_timm(tmp_path: Path) -> None:
    """Accuracy and top-5 on a list like ReaL's are those of timm's own evaluator, pictures without labels left out."""
    entries = [torch.randint(0, 12, (count,)).tolist() for count in torch.randint(0, 4, (60,)).tolist()]
    names = [f"n0144{n % 7}/ILSVRC2012_val_{n + 1:08d}.JPEG" for n in torch.randperm(60).tolist()]
    logits_nk = torch.randn(60, 12)
    file = written(tmp_path, entries)
    reference = RealLabelsImagenet(names, real_json=file)
    reference.add_result(logits_nk)
    places, labels, warning = labels_file.read(file, tmp_path, names)
    assert warning is None
    for metric, k in (("accuracy", 1), ("top5", 5)):
        found = METRICS[metric].value(METRICS[metric].contribution(logits_nk[places], torch.tensor(labels)))
        assert found.value == pytest.approx(reference.get_accuracy(k) / 100, abs=1e-12)
        assert found.n == sum(1 for entry in entries if entry) == len(labels)


def test_map(tmp_path: Path) -> None:
    """Entries by path or by file name; an index alone is a list of one; what is doubled counts once."""
    file = written(tmp_path, {"cat/0.png": [3, 1, 3], "1.png": 2, "2.png": [], "unused.png": [9]})
    places, labels, warning = labels_file.read(file, tmp_path / "val", ["cat/0.png", "dog/1.png", "2.png"])
    assert places == [0, 1]
    assert labels == [[1, 3], [2, labels_file.NONE]]
    absent = f"have no picture in {tmp_path}/val: they take no part"
    assert warning == f"1 of 4 entries of real.json (unused.png) {absent}"
    file = written(tmp_path, [[0], [1], [], [2], [3], [1]])
    assert labels_file.read(file, tmp_path / "val", ["a_1.png"]).warning == (
        f"4 of 6 entries of real.json (entry 2, entry 4, entry 5, ...) {absent}"
    )


@pytest.mark.parametrize(
    ("content", "pictures", "problem"),
    [
        ({"0.png": 1}, ["1.png"], "real.json: has no '1.png', did you mean '0.png'"),
        ({"0.png": 1}, ["cat/0.png", "dog/0.png"], "'0.png' is the name of 2 pictures"),
        ({"0.png": "cat"}, ["0.png"], "'0.png': 'cat' is neither a class"),
        ({"0.png": [1, True]}, ["0.png"], r"'0.png': \[1, True\] is neither"),
        ({"0.png": [-1]}, ["0.png"], r"'0.png': \[-1\] is neither"),
        ({"0.png": []}, ["0.png"], "real.json: no picture has a label"),
        ([[1]], ["cat.png"], "a list of 1 entries, and 'cat.png' ends in no number from 1 to 1"),
        ([[1]], ["val_2.png"], "'val_2.png' ends in no number from 1 to 1"),
        (3, ["0.png"], "real.json: neither a map from file names to labels nor a list"),
    ],
)
def test_errors(content: object, pictures: list[str], problem: str, tmp_path: Path) -> None:
    """What is no labels, or not those of the pictures, is named."""
    with pytest.raises(ValidationError, match=problem):
        labels_file.read(written(tmp_path, content), tmp_path, pictures)
