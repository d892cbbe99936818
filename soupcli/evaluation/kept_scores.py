"""Scores kept between runs, each under a key of everything that determines it, one file a key.

`soup rank` then `soup greedy` evaluates nothing twice, and a run that was killed goes on where it stopped. A file is
written aside and renamed, so readers never see half of one; what does not read back as a score is evaluated again.
"""

from __future__ import annotations

import base64
import contextlib
import json
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from soupcli import processes
from soupcli.errors import OutputError
from soupcli.evaluation.score import Score, Stopped, goodness_of
from soupcli.files.atomic import write_whole
from soupcli.files.json_text import dump_json, key_of
from soupcli.files.reading import memory_of
from soupcli.metrics.metric import MetricValue

SCHEMA = "soup-score/2"
# What a file that is damaged, cut short or not ours raises while it is read.
NO_SCORE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, zlib.error)
_DTYPES = {"uint8": torch.uint8, "int64": torch.int64, "float32": torch.float32, "float64": torch.float64}


class ScoreStore:
    """Scores by key in `folder`; `fresh` ignores what is there and writes it anew."""

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        self.fresh = fresh
        self._known: dict[str, Score] = {}

    def get(self, key: str, *, at_least: float | None = None) -> Score | None:
        """The score under `key`, with `examples` 0, or None.

        Where it need only be known whether its goodness is `at_least` so much, also that of an evaluation which was
        stopped with less in reach.
        """
        full = self._get(key)
        if full is not None or at_least is None:
            return full
        stopped = self._get(_of_stopped(key))
        if stopped is None or stopped.stopped is None:
            return None
        bound = goodness_of(stopped.stopped.bound, higher_is_better=stopped.higher_is_better)
        return stopped if bound < at_least else None

    def _get(self, key: str) -> Score | None:
        if key not in self._known:
            if self.fresh:
                return None
            try:
                self._known[key] = _from_json(key, json.loads(self._file(key).read_bytes()))
            except NO_SCORE:
                return None
        return self._known[key]._replace(examples=0)

    def put(self, key: str, score: Score) -> None:
        """Keeps the score; where the folder cannot be written it is kept for this run alone."""
        if score.stopped is not None:
            key = _of_stopped(key)
        self._known[key] = score
        try:
            write_whole(self._file(key), dump_json(_to_json(key, score)))
        except (OutputError, OSError):
            return

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _of_stopped(key: str) -> str:
    """Where an evaluation for `key` is kept that was stopped: never under the key of the whole."""
    return key_of({"stopped": key})


def _to_json(key: str, score: Score) -> dict[str, Any]:
    content = {
        "selecting": score.selecting,
        "higher_is_better": score.higher_is_better,
        "examples": score.examples,
        "metrics": {name: [_text(v.value), _text(v.stderr), v.n] for name, v in score.metrics.items()},
        "outcomes": {name: _packed(outcome) for name, outcome in score.outcomes.items()},
        "difficulty": None if score.difficulty is None else _packed(score.difficulty),
        "stopped": score.stopped and [score.stopped.seen, score.stopped.total, _text(score.stopped.bound)],
    }
    return {"schema": SCHEMA, "key": key, "content": content, "digest": key_of(content)}


def _from_json(key: str, document: dict[str, Any]) -> Score:
    """Raises one of NO_SCORE for anything but what `_to_json` made under this key."""
    content = document["content"]
    if (document["schema"], document["key"], document["digest"]) != (SCHEMA, key, key_of(content)):
        raise ValueError("another schema, another key, or damaged")
    metrics = {
        name: MetricValue(float(value), None if stderr is None else float(stderr), n)
        for name, (value, stderr, n) in content["metrics"].items()
    }
    outcomes = {name: _unpacked(packed) for name, packed in content["outcomes"].items()}
    difficulty = None if content["difficulty"] is None else _unpacked(content["difficulty"])
    stopped = None
    if content["stopped"] is not None:
        seen, total, bound = content["stopped"]
        stopped = Stopped(seen, total, float(bound))
    selecting = content["selecting"]
    if selecting not in metrics and stopped is None:
        raise ValueError("the selecting metric is missing")
    return Score(
        metrics,
        selecting,
        content["higher_is_better"],
        content["examples"],
        outcomes,
        stopped=stopped,
        difficulty=difficulty,
    )


def _text(value: float | None) -> str | None:
    """Exact, also for a NaN and an infinity, which JSON has not."""
    return None if value is None else repr(value)


def _packed(tensor: Tensor) -> list[Any]:
    dense = tensor.contiguous()
    data = base64.b64encode(zlib.compress(bytes(memory_of(dense)))).decode()
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), data]


def _unpacked(packed: list[Any]) -> Tensor:
    name, shape, data = packed
    raw = bytearray(zlib.decompress(base64.b64decode(data)))
    dtype = _DTYPES[name]
    return torch.frombuffer(raw, dtype=dtype).reshape(shape) if raw else torch.empty(shape, dtype=dtype)


FIT_SCHEMA = "soup-fit/1"


class FitStore:
    """The latest state of one fit; `fresh` ignores what an earlier run left."""

    def __init__(self, folder: Path, key: str, *, fresh: bool = False) -> None:
        self.file = folder / f"{key}.json"
        self.fresh = fresh

    def get(self) -> dict[str, Any] | None:
        """The state, None where there is none or where it does not read back as it was written."""
        return processes.from_first(self._read)

    def _read(self) -> dict[str, Any] | None:
        if self.fresh:
            return None
        try:
            kept = json.loads(self.file.read_bytes())
            state: dict[str, Any] = kept["state"]
            whole = kept["schema"] == FIT_SCHEMA and kept["digest"] == key_of(state)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return state if whole else None

    def put(self, state: dict[str, Any]) -> None:
        """Replaces the state; where the folder cannot be written, an interrupted fit begins again."""
        if not processes.is_first():
            return
        with contextlib.suppress(OutputError):
            write_whole(self.file, dump_json({"schema": FIT_SCHEMA, "digest": key_of(state), "state": state}))
