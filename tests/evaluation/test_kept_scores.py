"""Scores that are kept come back exactly, or not at all."""

from __future__ import annotations

import base64
import json
import math
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.evaluation.kept_scores import ScoreStore
from soupcli.evaluation.score import Score, Stopped
from soupcli.files.json_text import key_of
from soupcli.metrics.metric import MetricValue

KEY = key_of({"weights": "a"})
OTHER = key_of({"weights": "b"})


def a_score() -> Score:
    """A score with outcomes of several dtypes and shapes, in no alphabetical order."""
    outcomes = {
        "pairs": torch.randn(3, 2),
        "accuracy": torch.tensor([1, 0, 1], dtype=torch.uint8),
        "nll": torch.randn(3, dtype=torch.float64),
        "none": torch.zeros(0, dtype=torch.int64),
    }
    metrics = {"nll": MetricValue(1e-300, None, None), "accuracy": MetricValue(2 / 3, 0.1 + 0.2, 3)}
    return Score(metrics, "accuracy", True, 3, outcomes)


def assert_kept(found: Score | None, wanted: Score) -> None:
    """All but the examples is what it was, to the bit and in its order, which is that of the report."""
    assert found is not None
    assert list(found.metrics.items()) == list(wanted.metrics.items())
    assert (found.selecting, found.higher_is_better, found.examples) == (wanted.selecting, wanted.higher_is_better, 0)
    assert list(found.outcomes) == list(wanted.outcomes)
    for name, outcome in wanted.outcomes.items():
        assert found.outcomes[name].dtype == outcome.dtype
        assert torch.equal(found.outcomes[name], outcome)


def test_reads_back(tmp_path: Path) -> None:
    """In this run and in the next one, with nothing that went through the network."""
    store, score = ScoreStore(tmp_path), a_score()
    assert store.get(KEY) is None
    store.put(KEY, score)
    assert_kept(store.get(KEY), score)
    assert_kept(ScoreStore(tmp_path).get(KEY), score)
    assert ScoreStore(tmp_path).get(OTHER) is None


@settings(max_examples=60, deadline=None)
@given(st.floats(), st.none() | st.floats(min_value=0, allow_nan=False), st.none() | st.integers(0))
def test_any_numbers(
    tmp_path_factory: pytest.TempPathFactory, value: float, stderr: float | None, n: int | None
) -> None:
    """Every float comes back as it was, NaN, infinities and the smallest included."""
    folder = tmp_path_factory.mktemp("store")
    ScoreStore(folder).put(KEY, Score({"m": MetricValue(value, stderr, n)}, "m", False, 0, {}))
    found = ScoreStore(folder).get(KEY)
    assert found is not None
    kept = found.metrics["m"]
    assert math.isnan(kept.value) if math.isnan(value) else kept.value == value
    assert math.copysign(1, kept.value) == math.copysign(1, value) or math.isnan(value)
    assert (kept.stderr, kept.n) == (stderr, n)


def test_views(tmp_path: Path) -> None:
    """Outcomes that are no dense memory are kept by what they say."""
    score = a_score()._replace(outcomes={"pairs": torch.arange(12.0).reshape(3, 4).T[1:3]})
    ScoreStore(tmp_path).put(KEY, score)
    assert_kept(ScoreStore(tmp_path).get(KEY), score)


def test_fresh(tmp_path: Path) -> None:
    """A fresh store ignores what is there, and leaves what it finds out to the next one."""
    ScoreStore(tmp_path).put(KEY, a_score())
    fresh = ScoreStore(tmp_path, fresh=True)
    assert fresh.get(KEY) is None
    newer = a_score()
    fresh.put(KEY, newer)
    assert_kept(fresh.get(KEY), newer)
    assert_kept(ScoreStore(tmp_path).get(KEY), newer)


def _edited(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def edit(file: Path) -> None:
        document = json.loads(file.read_text())
        change(document)
        file.write_text(json.dumps(document))

    return edit


def a_folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "not_json": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "deep": lambda file: file.write_bytes(b"[" * 100_000),
    "list": lambda file: file.write_text("[]"),
    "number": lambda file: file.write_text("3"),
    "null": lambda file: file.write_text("null"),
    "foreign": lambda file: file.write_text('{"schema": "other/1", "scores": []}'),
    "older": _edited(lambda document: document.update(schema="soup-score/0")),
    "no_content": _edited(lambda document: document.pop("content")),
    "bit": lambda file: file.write_text(file.read_text().replace("0.6666", "0.9666")),
    "outcome": lambda file: file.write_text(file.read_text().replace('"uint8"', '"int64"')),
    "folder": a_folder_instead,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged(damage: str, tmp_path: Path) -> None:
    """A file that is damaged, cut short, of another version or of someone else is as if it were not there."""
    ScoreStore(tmp_path).put(KEY, a_score())
    DAMAGE[damage](next(tmp_path.rglob("*.json")))
    store = ScoreStore(tmp_path)
    assert store.get(KEY) is None
    store.put(KEY, a_score())
    assert store.get(KEY) is not None


def test_under_another_key(tmp_path: Path) -> None:
    """A file that was copied to the place of another score is not that score."""
    ScoreStore(tmp_path).put(KEY, a_score())
    ScoreStore(tmp_path).put(OTHER, a_score())
    files = {file.stem: file for file in tmp_path.rglob("*.json")}
    shutil.copyfile(files[OTHER], files[KEY])
    assert ScoreStore(tmp_path).get(KEY) is None


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_unwritable(below: str, tmp_path: Path) -> None:
    """Where no folder can be made the score is kept for this run."""
    (tmp_path / "file").write_text("in the way")
    store = ScoreStore(tmp_path / "file" / below)
    assert store.get(KEY) is None
    store.put(KEY, a_score())
    assert store.get(KEY) is not None
    assert ScoreStore(tmp_path / "file" / below).get(KEY) is None


def test_keys() -> None:
    """A key depends on what is in it and not on the order in which it was said."""
    assert key_of({"a": 1, "b": [2.5, "x"]}) == key_of({"b": [2.5, "x"], "a": 1})
    assert key_of({"a": 1, "b": [2.5, "x"]}) != key_of({"a": 1, "b": ["x", 2.5]})
    assert key_of({"a": None}) != key_of({"a": "None"})


@pytest.mark.parametrize("higher", [True, False])
def test_stopped(tmp_path: Path, higher: bool) -> None:
    """An evaluation that was stopped is served where it settles the question, and never where the whole is wanted."""
    sign = 1 if higher else -1
    stopped = Score({}, "accuracy", higher, 3, {}, stopped=Stopped(3, 9, 0.5))
    for again in (False, True):
        store = ScoreStore(tmp_path)
        if not again:
            store.put(KEY, stopped)
        assert store.get(KEY) is None
        assert store.get(KEY, at_least=sign * 0.5) is None
        assert store.get(KEY, at_least=sign * 0.4 if higher else -0.6) is None
        assert store.get(KEY, at_least=math.nextafter(sign * 0.5, math.inf)) == stopped._replace(examples=0)
    store = ScoreStore(tmp_path)
    store.put(KEY, a_score())
    for at_least in (None, 0.1, 1.0):
        assert_kept(store.get(KEY, at_least=at_least), a_score_of(store))


def a_score_of(store: ScoreStore) -> Score:
    """The whole score that the store has."""
    whole = store.get(KEY)
    assert whole is not None and whole.stopped is None
    return whole


def test_outcomes_that_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of all outcomes count together, before one of them is unpacked."""
    store = ScoreStore(tmp_path)
    store.put(KEY, a_score())
    (file,) = tmp_path.rglob("*.json")
    document = json.loads(file.read_bytes())
    zeros = ["uint8", [30_000_000], base64.b64encode(zlib.compress(bytes(30_000_000))).decode()]
    document["content"]["outcomes"] += [[name, *zeros] for name in ("a", "b", "c")]
    document["digest"] = key_of({"content": document["content"], "depends": document["depends"]})
    file.write_text(json.dumps(document))
    monkeypatch.setattr(zlib, "decompressobj", lambda: pytest.fail("unpacked"))
    assert ScoreStore(tmp_path).get(KEY) is None
