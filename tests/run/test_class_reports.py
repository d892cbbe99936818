"""Which class is which is asked of the configuration only if a set needs it, and said once for two parts of a set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import transformers_toys as toys
from tests.helpers.pictures import class_folders


def test_a_mean_needs_no_names(tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`soup uniform` without a set does not look at the class names; a set says what is wrong with them."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        toys.bert(Path(f"run{number}"), seed=number)
        file = Path(f"run{number}/config.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"id2label": {"1": "no", "2": "yes"}}))
    assert soup("uniform", "--ckpts", "run0", "run1", "--out", "out").code == 0
    Path("val.jsonl").write_text(json.dumps({"text": "good", "label": "no"}) + "\n")
    ran = soup("eval", "--ckpts", "run0", "--val", "val.jsonl")
    assert (ran.code, "id2label names the logits 1, 2, there is no 0" in ran.stderr) == (2, True)


def test_said_once(tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parts of a set that is held out in part have one order, and one warning."""
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "val", {str(number): 2 for number in range(1, 13)})
    for number in range(2):
        toys.vit(Path(f"run{number}"), seed=number)
    keys = "class_to_index: {" + ", ".join(f"'{number}': {number % 3}" for number in range(1, 13)) + "}"
    Path("soup.yaml").write_text(f"val: {{val: {{images: val, {keys}}}}}\n")
    ran = soup("greedy", "--ckpts", "run0", "run1", "--val", "val", "--holdout", "0.5", "--out", "out", "--json")
    assert ran.code == 0, ran.stderr
    classes = json.loads(ran.stdout)["classes"]
    assert {order["by"] for order in classes.values()} == {"class_to_index"}
    assert set(classes) == {"val[selecting]", "val[held out]"}
    assert ran.stderr.count("order of the classes") == 0
