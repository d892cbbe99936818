"""Saved logits and the ensembles scored from them, against torch alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from soupcli.errors import ValidationError
from soupcli.evaluation import ensembles as module
from soupcli.evaluation.ensembles import Ensembles
from soupcli.evaluation.logits import Collected, LogitFile, LogitFolder, LogitsSource
from soupcli.metrics.metric import LabelKind
from soupcli.mixing.mixture import Mixture
from tests.helpers.outcomes import checkpoints

N, C = 37, 5


def logits_of(seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(N, C, generator=torch.Generator().manual_seed(seed))


def labels_of(seed: int = 99) -> Tensor:
    return torch.randint(0, C, (N,), generator=torch.Generator().manual_seed(seed))


def save(folder: Path, number: int, logits: Tensor, labels: Tensor, kind: LabelKind = "classes") -> LogitFile:
    """Logits given in two batches and in another order than the set's, as an evaluation may give them."""
    source = LogitsSource(f"{number}" * 64, f"sha256:{number}" + f"{number}" * 63, "a set", f"runs/{number}", "val")
    file, collected = LogitFolder(folder).file(source), Collected(labels, kind)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(number))
    for indices in order.split(20):
        collected(indices, logits[indices])
    file.save(collected)
    return file


def family(folder: Path, logits: list[Tensor]) -> tuple[list[Any], Ensembles]:
    members = checkpoints([f"runs/{number}" for number in range(len(logits))])
    files = {m: save(folder, number, logits[number], labels_of()) for number, m in enumerate(members)}
    return members, Ensembles(files, ["accuracy", "nll", "ece"], name="val.val")


def by_hand(logits: list[Tensor]) -> tuple[float, float]:
    mean, labels = torch.stack(logits).double().mean(0), labels_of()
    return float((mean.argmax(1) == labels).sum()) / N, float(functional.cross_entropy(mean, labels))


@pytest.mark.parametrize("count", [1, 2, 6])
def test_mean_of_logits(tmp_path: Path, count: int) -> None:
    """Accuracy and likelihood of the mean of the logits, as float16 keeps them; no example counts as evaluated."""
    logits = [logits_of(seed) for seed in range(count)]
    members, ensemble = family(tmp_path, logits)
    score = ensemble(Mixture.uniform(members))
    accuracy, nll = by_hand(logits)
    assert score.value == score.metrics["accuracy"].value == accuracy
    assert score.metrics["nll"].value == pytest.approx(nll, abs=2e-3)
    assert score.metrics["ece"].n == N and score.examples == 0


def test_growing_ensembles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in any order, with the sum of earlier members at hand or not, in blocks or whole: the same scores."""
    members, growing = family(tmp_path, [logits_of(seed) for seed in range(5)])
    asked = [[0], [0, 1], [0, 2], [0, 2, 3], [0, 2, 4], [1, 2], [0, 2], [4]]
    mixtures = [Mixture.uniform([members[i] for i in some]) for some in asked]
    alone = [Ensembles(growing._files, ["nll"], name="val")(mixture).value for mixture in mixtures]
    monkeypatch.setattr(module, "BLOCK", 4 * C)
    assert [growing(m).metrics["nll"].value for m in mixtures] == pytest.approx(alone, rel=1e-14)
    assert [s.metrics["nll"].value for s in growing.scores(mixtures)] == pytest.approx(alone, rel=1e-14)


def test_weights(tmp_path: Path) -> None:
    """An ensemble of unequal weights is the weighted mean of logits."""
    logits = [logits_of(0), logits_of(1)]
    members, ensemble = family(tmp_path, logits)
    score = ensemble(Mixture(tuple(members), (0.9, 0.1)))
    expected = functional.cross_entropy(0.9 * logits[0].double() + 0.1 * logits[1].double(), labels_of())
    assert score.metrics["nll"].value == pytest.approx(float(expected), abs=2e-3)


@settings(max_examples=30, deadline=None)
@given(exponent=st.integers(-3, 30), shift=st.floats(-1e6, 1e6), seed=st.integers(0, 100))
def test_no_size_overflows(tmp_path_factory: pytest.TempPathFactory, exponent: int, shift: float, seed: int) -> None:
    """Logits of any size come back finite, each within float16's precision of how far it is below the largest."""
    logits = logits_of(seed, 10.0**exponent) + shift
    file = save(tmp_path_factory.mktemp("logits"), 0, logits, labels_of())
    below = (logits - logits.amax(dim=1, keepdim=True)).double()
    found = file.rows(0, N)
    assert bool(found.isfinite().all())
    smallest = 2.0**-24 * max(1.0, float(below.abs().amax()) / 2**15)  # the least that the file tells from 0
    assert torch.allclose(found, below, rtol=2.0**-11, atol=smallest)
    assert torch.equal(found.argmax(1), logits.argmax(1)) or exponent < 5


def test_a_nan_stays_one(tmp_path: Path) -> None:
    """A network that gives NaN is not right about that example, and its likelihood is not a number."""
    logits = logits_of(0)
    logits[3, 1] = torch.nan
    members, ensemble = family(tmp_path, [logits])
    score = ensemble(Mixture.uniform(members))
    assert score.metrics["nll"].value != score.metrics["nll"].value
    assert not score.outcomes["accuracy"][3]


def test_numbers(tmp_path: Path) -> None:
    """Networks that predict a number are averaged in float32: the number itself is what is kept beside."""
    labels = torch.randn(N, generator=torch.Generator().manual_seed(5)).double()
    outputs = [logits_of(seed)[:, :1] * 1e5 for seed in range(2)]
    members = checkpoints(["a", "b"])
    files = {m: save(tmp_path, i, outputs[i], labels, "numbers") for i, m in enumerate(members)}
    score = Ensembles(files, ["mse"], name="val")(Mixture.uniform(members))
    mean = torch.stack(outputs).double().mean(0)[:, 0]
    assert score.value == pytest.approx(float(((mean - labels) ** 2).mean()), rel=1e-6)


def test_what_is_not_ours_is_not_there(tmp_path: Path) -> None:
    """A file that is cut short, of another key or of something else counts as missing, and is written over."""
    file = save(tmp_path, 1, logits_of(1), labels_of())
    assert file.is_there
    other = LogitFile(file.path, file.source._replace(key="another"))
    assert not other.is_there
    data = file.path.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"something else"):
        file.path.write_bytes(broken)
        assert not file.is_there
    file.path.write_bytes(data)
    assert file.is_there
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


def test_of_another_set(tmp_path: Path) -> None:
    """Logits of other examples or classes are refused, by the name of the file."""
    one, other = checkpoints(["a", "b"])
    files = {one: save(tmp_path, 0, logits_of(0), labels_of()), other: save(tmp_path, 1, logits_of(1), labels_of(7))}
    with pytest.raises(ValidationError, match=r"1{16}-1{16}\.safetensors: is not of the set of .*0{16}"):
        Ensembles(files, ["accuracy"], name="val")


def test_layout(tmp_path: Path) -> None:
    """Anyone reads the file: float16 and the largest logit give the logits; the header says of what they are."""
    logits = logits_of(4)
    file = save(tmp_path, 4, logits, labels_of())
    with safe_open(file.path, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        header = opened.metadata()["soup"]
    assert tensors["logits"].dtype == torch.float16 and tensors["logits"].shape == (N, C)
    assert torch.allclose(tensors["logits"].float() + tensors["largest"][:, None], logits, atol=5e-3)
    assert torch.equal(tensors["labels"], labels_of())
    assert all(f'"{key}"' in header for key in ("hash", "fingerprint", "checkpoint", "set_name", "scale", "schema"))
