"""What looks like a validation set, in folders with very many entries."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from soupcli.datasets import survey
from soupcli.datasets.survey import sets_below


def test_near_entries_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set is found beside a folder with more entries than are looked at, also if that comes first by name."""
    monkeypatch.setattr(survey, "MAX_LOOKED_AT", 8)
    for name in (*(f"archive/{number}.bin" for number in range(20)), "val/cat/a.png", "val/dog/b.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file) if file.suffix == ".png" else file.write_bytes(b"")
    (tmp_path / "dev.csv").write_text("sentence,label\ngood,1\nbad,0\n")
    assert set(sets_below(tmp_path, runs=[], writes=False)) == {"val", "dev"}
