"""What is kept between runs, changed by a stranger: scores, fits, hashes, inputs, logits.

Their bytes are changed, or their content with a digest that goes with it: what does not read back is made again.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from soupcli.cli.parsing import guarded
from soupcli.datasets.input_cache import InputCache
from soupcli.evaluation.kept_scores import FitStore, ScoreStore
from soupcli.evaluation.logits import Collected, LogitFolder, LogitsSource
from soupcli.evaluation.score import Score
from soupcli.files.json_text import key_of
from soupcli.files.manifest import Manifest
from soupcli.metrics.metric import MetricValue
from tests.torture.mutations import encoded, mutated_bytes, mutated_json
from tests.torture.targets import Target

KEY = "ab" * 32
SCORE = Score(
    {"accuracy": MetricValue(0.5, 0.25, 4)}, "accuracy", True, 4, {"accuracy": torch.tensor([1, 0, 1, 0]).byte()}
)
FIT = {"finished": [], "now": {"done": 1, "rounds": [[0, 0.5, 0.5, 0.0, 0.0, 1.0, [[0.5, 0.5]]]]}}
SOURCE = LogitsSource(KEY, f"sha256:{KEY}", "digits", "runs/a", "val")
NONE: list[list[str]] = []


def targets() -> list[Target]:
    """Every store, whole to begin with, in the working folder."""
    scores, fits = ScoreStore(Path("store")), FitStore(Path("fits"), "fit")
    scores.put(KEY, SCORE)
    fits.put(FIT)
    Path("hashed").write_bytes(b"x" * 100)
    Manifest(Path("hashes")).file(Path("hashed"))
    inputs = InputCache(Path("inputs"))
    tensors = {"ids": torch.arange(6).view(2, 3)}
    inputs.made(KEY, lambda: tensors, count=len, fits=lambda _: False)
    logits = LogitFolder(Path("logits")).file(SOURCE)
    collected = Collected(torch.tensor([0, 1]), "classes")
    collected(torch.arange(2), torch.rand(2, 3))
    logits.save(collected)

    def kept_logits() -> None:
        file = LogitFolder(Path("logits")).file(SOURCE)
        if file.is_there:
            assert file.rows(0, 2).shape[0] == len(file.labels()[:2])

    def kept_inputs() -> None:
        InputCache(Path("inputs")).get(KEY, _fit)

    assert ScoreStore(Path("store")).get(KEY) is not None
    assert FitStore(Path("fits"), "fit").get() == FIT
    assert InputCache(Path("inputs")).get(KEY, _fit) is not None
    assert logits.is_there
    return [
        _documents("scores", Path("store"), lambda: ScoreStore(Path("store")).get(KEY)),
        _documents("fits", Path("fits"), lambda: FitStore(Path("fits"), "fit").get()),
        _documents("hashes", Path("hashes"), lambda: Manifest(Path("hashes")).file(Path("hashed"))),
        _tensors("inputs", Path("inputs"), kept_inputs),
        _tensors("logits", Path("logits"), kept_logits),
    ]


def _fit(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == {"ids"} and found["ids"].shape == (2, 3)


def _silent(name: str, write: Callable[[random.Random], None], read: Callable[[], object]) -> Target:
    def reads() -> int:
        read()
        return 0

    return Target(name, write, lambda: guarded(reads), silent=True)


def _documents(name: str, folder: Path, read: Callable[[], object]) -> Target:
    """A store of JSON documents, of which the one in `folder` is changed."""
    found = list(folder.rglob("*.json"))
    document = json.loads(found[0].read_bytes()) if found else {}

    def write(rng: random.Random) -> None:
        for file in found:
            file.write_bytes(_changed(document, rng))

    return _silent(name, write, read)


def _changed(document: Any, rng: random.Random) -> bytes:
    """The document with its bytes changed, or with other content under a digest that goes with it."""
    content, depends = document["content"], rng.choice([NONE, NONE, [["hashed", "absent"]], [[3, 4]], 7])
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(mutated_json(content, rng).decode("utf-8", "surrogatepass"))
    body = {"content": content, "depends": depends}
    try:
        digest = key_of(body)
    except (ValueError, RecursionError, TypeError):
        digest = ""
    whole = encoded({**document, "digest": digest, **body}).encode("utf-8", "surrogatepass")
    return mutated_bytes(whole, rng) if rng.random() < 0.4 else whole


def _tensors(name: str, folder: Path, read: Callable[[], object]) -> Target:
    """A store of tensors, whose bytes, shapes, dtypes and header are changed."""
    (file,) = folder.rglob("*.safetensors")
    whole = file.read_bytes()
    with safe_open(file, "pt") as opened:
        metadata, tensors = opened.metadata(), {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118

    def write(rng: random.Random) -> None:
        if rng.random() < 0.5:
            file.write_bytes(mutated_bytes(whole, rng))
            return
        other, notes = dict(tensors), dict(metadata)
        key = rng.choice(list(other))
        ways: list[Callable[[], torch.Tensor]] = [
            lambda: other[key].to(torch.float64),
            lambda: other[key].new_zeros(1),
            lambda: other[key].new_zeros(0),
            lambda: other[key].expand(2, *other[key].shape).contiguous(),
        ]
        other[key] = rng.choice(ways)()
        note = rng.choice(list(notes))
        notes[note] = rng.choice(["", "{}", "[" * 5000, "\0", "9" * 400, notes[note], notes[note].upper()])
        save_file(other, file, metadata=notes)

    return _silent(name, write, read)
