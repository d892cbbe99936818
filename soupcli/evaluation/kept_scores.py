"""Scores and fits kept between runs, each under a key of everything that determines it.

`soup rank` then `soup greedy` evaluates nothing twice, and a run that was killed goes on where it stopped. An entry
that is not a valid score is evaluated again (see files/json_store.py).
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

from soupcli import processes
from soupcli.evaluation.outcomes import LARGEST, Outcomes, Packed, count, packed, size_of
from soupcli.evaluation.score import Score, Stopped, goodness_of
from soupcli.files.json_store import DAMAGED, JsonStore
from soupcli.files.json_text import key_of
from soupcli.metrics.metric import MetricValue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soupcli.files.json_store import Inputs

SCHEMA = "soup-score/6"
FIT_SCHEMA = "soup-fit/4"
SEARCH_SCHEMA = "soup-coefficient-search/1"
# What content raises that is no score.
NO_SCORE = (*DAMAGED, RuntimeError, OverflowError, zlib.error)


class ScoreStore:
    """Scores by key in `folder`. `fresh` ignores kept scores and replaces them.

    `inputs` records what else a score depends on. A kept score is returned only while that is unchanged.
    """

    def __init__(self, folder: Path, *, fresh: bool = False, inputs: Inputs | None = None) -> None:
        self.folder = folder
        self._store = JsonStore(folder, SCHEMA, fresh=fresh, inputs=inputs)
        self._known: dict[str, Score] = {}

    def get(self, key: str, *, at_least: float | None = None) -> Score | None:
        """Return the score under `key`, with `examples` 0, or None.

        With `at_least`, also returns an evaluation that was stopped because that goodness was out of reach.
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
            content = self._store.get(key)
            if content is None:
                return None
            try:
                self._known[key] = _from_json(content)
            except NO_SCORE:
                return None
        return self._known[key]._replace(examples=0)

    def remember(self, key: str, score: Score) -> None:
        """Keep the score, only for this run."""
        self._known[key] = score

    def put(self, key: str, score: Score) -> None:
        """Keep the score; only for this run if the folder cannot be written."""
        if score.stopped is not None:
            key = _of_stopped(key)
        self._known[key] = score
        self._store.put(key, _to_json(score))


def _of_stopped(key: str) -> str:
    """Return the key of a stopped evaluation, which differs from that of the whole one."""
    return key_of({"stopped": key})


def _to_json(score: Score) -> dict[str, Any]:
    return {
        "selecting": score.selecting,
        "higher_is_better": score.higher_is_better,
        "examples": score.examples,
        # Lists, for metrics and outcomes keep their order.
        "metrics": [[name, _text(v.value), _text(v.stderr), v.n] for name, v in score.metrics.items()],
        "outcomes": [[name, *packed(outcome)] for name, outcome in score.outcomes.items()],
        "difficulty": None if score.difficulty is None else packed(score.difficulty),
        "unseen": list(score.unseen),
        "stopped": score.stopped and [score.stopped.seen, score.stopped.total, _text(score.stopped.bound)],
    }


def _from_json(content: dict[str, Any]) -> Score:
    """Read a score. Raises one of NO_SCORE for anything that `_to_json` does not write."""
    kept = [*(packed_ for _, *packed_ in content["outcomes"]), *filter(None, [content["difficulty"]])]
    if sum(size_of(*one) for one in kept) > LARGEST:
        raise ValueError("its tensors would fill the memory")
    metrics = {_word(name): _value(*parts) for name, *parts in content["metrics"]}
    outcomes = Outcomes({_word(name): Packed.of(*kept) for name, *kept in content["outcomes"]})
    stopped = None
    if content["stopped"] is not None:
        seen, total, bound = content["stopped"]
        stopped = Stopped(count(seen), count(total), float(_word(bound)))
    selecting, higher = _word(content["selecting"]), content["higher_is_better"]
    if not isinstance(higher, bool) or (stopped is None) != (selecting in metrics):
        raise ValueError("the selecting metric is missing")
    difficulty = None if content["difficulty"] is None else Packed.of(*content["difficulty"])
    examples, unseen = count(content["examples"]), tuple(map(_word, content["unseen"]))
    return Score(metrics, selecting, higher, examples, outcomes, stopped=stopped, difficulty=difficulty, unseen=unseen)


def _value(value: str, stderr: str | None, n: int | None) -> MetricValue:
    error = None if stderr is None else float(_word(stderr))
    if error is not None and (error < 0 or math.isnan(error)):
        raise ValueError("a standard error is not negative")
    return MetricValue(float(_word(value)), error, None if n is None else count(n))


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _text(value: float | None) -> str | None:
    """Return a number as exact text, also a NaN or an infinity, which JSON lacks."""
    return None if value is None else repr(value)


class FitStore:
    """The latest state of one fit or search. `fresh` ignores the state of an earlier run.

    `confirm` raises an error if what the state was made of has changed; then it is not kept.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        *,
        schema: str = FIT_SCHEMA,
        fresh: bool = False,
        inputs: Inputs | None = None,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = JsonStore(folder, schema, fresh=fresh, inputs=inputs)
        self._confirm = confirm
        self._key = key
        self.file = self._store.file(key)

    def get(self) -> dict[str, Any] | None:
        """Return the kept state, or None if there is none or it is damaged."""
        return processes.from_first(self._read)

    def _read(self) -> dict[str, Any] | None:
        state = self._store.get(self._key)
        return state if isinstance(state, dict) else None

    def put(self, state: dict[str, Any]) -> None:
        """Replace the state. If the folder cannot be written, an interrupted fit will begin again."""
        if processes.is_first():
            self._confirm()
            self._store.put(self._key, state)
