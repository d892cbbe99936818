"""Inner products of checkpoints, streamed: the same as computed in one go, however they are cut, sharp where needed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.open import open_checkpoint
from soupcli.mixing.arithmetic.arrays import Array
from soupcli.networks import geometry
from soupcli.networks.geometry import angles, distances, lengths, measure
from soupcli.networks.layer_names import layers_by_name
from soupcli.networks.learned import pieces

State = dict[str, Tensor]


@pytest.fixture(params=["numpy", "torch"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What multiplies where nothing else is asked for."""
    monkeypatch.setattr(geometry, "cpu_library", lambda: importlib.import_module(request.param))
    name: str = request.param
    return name


def near(found: Array, wanted: Array, **tolerances: Any) -> None:
    """Fail if arrays of either library are not close."""
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(wanted), **tolerances)


def saved(folder: Path, states: Sequence[State]) -> list[Checkpoint]:
    """Each state dict as a checkpoint of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, state in enumerate(states):
        save_file(state, folder / f"{number:02}.safetensors")
    return [open_checkpoint(folder / f"{number:02}.safetensors") for number in range(len(states))]


def cut(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    """Pieces of so many elements of one checkpoint."""
    monkeypatch.setattr(pieces, "largest", lambda checkpoints: checkpoints * elements * 8)


def random_states(count: int, *, spread: float, dtype: torch.dtype = torch.float32) -> list[State]:
    """Copies of one network, each moved by a little of its own."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    start = {"blocks.0.fc.weight": draw(70, 40), "blocks.0.norm.weight": draw(40), "head.weight": draw(5, 70)}
    return [
        {name: (tensor + spread * draw(*tensor.shape)).to(dtype) for name, tensor in start.items()}
        for _ in range(count)
    ]


def rows(states: Sequence[State], names: Sequence[str]) -> Tensor:
    """Each state as one long vector of float64."""
    return torch.stack([torch.cat([state[name].double().flatten() for name in names]) for state in states])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_equals_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Layer by layer the inner products are those of whole vectors, from the mean, a checkpoint and the origin."""
    cut(monkeypatch, 97)
    states = random_states(5, spread=0.1, dtype=dtype)
    groups = layers_by_name(states[0])
    geometry = measure(saved(tmp_path, states), groups)
    assert geometry.layers == ["blocks.0", "head"] and geometry.sizes == [70 * 40 + 40, 350]
    for layer, names in enumerate(groups.values()):
        vectors = rows(states, names)
        offsets, about = vectors - vectors.mean(dim=0), (vectors - vectors[2])[[0, 1, 3, 4]]
        near(geometry.gram_lkk[layer], offsets @ offsets.T, rtol=1e-12, atol=1e-10)
        near(geometry.about(2)[layer], about @ about.T, rtol=1e-11, atol=1e-10)
        near(geometry.whole()[layer], vectors @ vectors.T, rtol=1e-12, atol=1e-10)
        near(distances(geometry.gram_lkk[layer]), torch.cdist(vectors, vectors), rtol=1e-9, atol=1e-6)


def test_angles_are_those_of_the_vectors(tmp_path: Path) -> None:
    """Lengths and angles of offsets and of whole weights, and no angle where there is no offset."""
    states = random_states(4, spread=0.5)
    geometry = measure(saved(tmp_path, [*states, states[0]]), layers_by_name(states[0]))
    vectors = rows([*states, states[0]], list(states[0]))
    about = vectors[1:] - vectors[0]
    expected = torch.rad2deg(torch.nn.functional.cosine_similarity(about[0], about[1], dim=0).acos())
    found = angles(geometry.about(0).sum(0))
    near(found[0, 1], expected)
    near(lengths(geometry.about(0).sum(0))[:3], about[:3].norm(dim=1))
    assert all(map(math.isnan, found[3].tolist()))  # the last one is the first again
    whole = angles(geometry.whole().sum(0))
    cosine = torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0)
    near(whole[0, 1], torch.rad2deg(cosine.acos()))


def test_sharp_between_near_copies(tmp_path: Path) -> None:
    """Checkpoints that differ by a millionth of their size have distances right to ten digits."""
    states = random_states(3, spread=0.0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for state in states:
        state["blocks.0.fc.weight"] += 1e-6 * torch.randn(70, 40, generator=generator, dtype=torch.float64)
    geometry = measure(saved(tmp_path, states), layers_by_name(states[0]))
    vectors = rows(states, list(states[0]))
    expected = (vectors[0] - vectors[1]).norm()
    found = distances(geometry.gram_lkk.sum(0))[0, 1]
    assert abs(found / expected - 1) < 1e-9
    assert abs(geometry.gram_lkk[1]).max() < 1e-25  # the head did not move


def outlier_and_neighbours() -> list[State]:
    """Five that hardly differ, and one of zeros."""
    states = random_states(6, spread=1e-4)
    states[5] = {name: torch.zeros_like(tensor) for name, tensor in states[5].items()}
    return states


def one_direction() -> list[State]:
    """Offsets from the first of which the second and third go 0.05 degrees apart; the fourth is a copy of the third."""
    states = random_states(3, spread=0.0)
    way, side = (random_states(2, spread=1.0)[number] for number in (0, 1))
    for name, tensor in states[0].items():
        states[1][name] = tensor + 0.1 * (way[name] - tensor)
        states[2][name] = states[1][name] + 0.1 * 0.05 / 57.3 * (side[name] - tensor)
    return [*states, states[2]]


def scaled(by: float) -> list[State]:
    """Numbers whose squares float32 does not hold."""
    return [{name: by * tensor for name, tensor in state.items()} for state in random_states(4, spread=0.1)]


FAMILIES: dict[str, list[State]] = {
    "fine-tuned": random_states(6, spread=0.01),
    "bfloat16": random_states(6, spread=0.1, dtype=torch.bfloat16),
    "strangers": random_states(4, spread=10.0),
    "an outlier": outlier_and_neighbours(),
    "one direction": one_direction(),
    "large": scaled(1e25),
    "small": scaled(1e-30),
    "two copies": random_states(2, spread=0.0),
}


@pytest.mark.parametrize("cut_to", [10**6, 53])
@pytest.mark.parametrize("family", FAMILIES)
def test_quick_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, cut_to: int) -> None:
    """Products in float32 give every angle to 0.001 degrees, every distance to a millionth, in blocks of any size."""
    cut(monkeypatch, cut_to)
    states = FAMILIES[family]
    checkpoints, groups = saved(tmp_path, states), layers_by_name(states[0])
    exact, quick = measure(checkpoints, groups), measure(checkpoints, groups, quick=True)
    for exact_lkk, quick_lkk in ((exact.about(0), quick.about(0)), (exact.whole(), quick.whole())):
        for found, wanted in ((quick_lkk, exact_lkk), (quick_lkk.sum(0), exact_lkk.sum(0))):
            near(angles(found), angles(wanted), rtol=1e-4, atol=1e-3, equal_nan=True)
    near(distances(quick.gram_lkk), distances(exact.gram_lkk), rtol=1e-6, atol=0.0)
    near(lengths(quick.gram_lkk), lengths(exact.gram_lkk), rtol=1e-6, atol=1e-37)


def test_quick_is_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of networks that were fine-tuned from one, nothing is multiplied in float64."""
    states = random_states(4, spread=0.01)

    def refuse(*_: object) -> None:
        raise AssertionError("float64")

    monkeypatch.setattr(geometry._Multiplier, "_in_double", refuse)
    checkpoints = saved(tmp_path, states)
    measure(checkpoints, layers_by_name(states[0]), quick=True)
    with pytest.raises(AssertionError, match="float64"):
        measure(checkpoints, layers_by_name(states[0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_of_either_library(tmp_path: Path, family: str, library: str) -> None:
    """numpy and torch give the same angles and distances, each in arrays of its own."""
    checkpoints, groups = saved(tmp_path, FAMILIES[family]), layers_by_name(FAMILIES[family][0])
    here, other = (measure(checkpoints, groups, quick=True, library=one) for one in (None, np))
    assert type(here.gram_lkk).__module__ == library
    near(angles(here.about(0).sum(0)), angles(other.about(0).sum(0)), rtol=1e-4, atol=1e-3, equal_nan=True)
    near(distances(here.gram_lkk), distances(other.gram_lkk), rtol=1e-6, atol=0.0)


def test_numbers_of_16_bits_in_either_library(tmp_path: Path) -> None:
    """An infinity of float16 is found in the quick way too, where the largest number beside it is none."""
    states = random_states(3, spread=0.1, dtype=torch.float16)
    states[0]["head.weight"][0, 0] = 65504.0
    states[2]["head.weight"][0, 1] = torch.inf
    found = measure(saved(tmp_path, states), layers_by_name(states[0]), quick=True)
    assert [(bad.checkpoint, bad.element, bad.elements) for bad in found.not_finite] == [(2, 1, 1)]


def test_the_same_bits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever thread is first, the sums are the same."""
    cut(monkeypatch, 50)
    states = random_states(4, spread=0.3)
    checkpoints = saved(tmp_path, states)
    first, second = (measure(checkpoints, layers_by_name(states[0])) for _ in range(2))
    assert np.array_equal(first.gram_lkk, second.gram_lkk) and np.array_equal(first.along_lk, second.along_lk)


@pytest.mark.parametrize("quick", [False, True], ids=["double", "quick"])
def test_numbers_that_are_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    """They are told by checkpoint, tensor and element, and the rest is measured without these elements."""
    cut(monkeypatch, 64)
    states = random_states(3, spread=0.1)
    states[1]["head.weight"][1, 3] = torch.nan
    states[1]["head.weight"][4, 2:5] = -torch.inf
    states[2]["blocks.0.norm.weight"][7] = torch.inf
    geometry = measure(saved(tmp_path, states), layers_by_name(states[0]), quick=quick)
    assert [(bad.checkpoint, bad.name, bad.element, bad.elements) for bad in geometry.not_finite] == [
        (1, "head.weight", 73, 4),
        (2, "blocks.0.norm.weight", 7, 1),
    ]
    assert geometry.not_finite[1].value == torch.inf
    vectors = rows(states, ["head.weight"])
    vectors = vectors[:, vectors.isfinite().all(dim=0)]
    offsets = vectors - vectors.mean(dim=0)
    tolerance = 1e-5 if quick else 1e-12
    near(geometry.gram_lkk[1], offsets @ offsets.T, rtol=tolerance, atol=tolerance)


def test_mixed_dtypes(tmp_path: Path) -> None:
    """Checkpoints of several dtypes, float8 among them, are measured as the numbers that they hold."""
    states = random_states(3, spread=0.2)
    states[1] = {name: tensor.to(torch.bfloat16) for name, tensor in states[1].items()}
    states[2] = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in states[2].items()}
    geometry = measure(saved(tmp_path, states), {"all": list(states[0])})
    vectors = rows(states, list(states[0]))
    offsets = vectors - vectors.mean(dim=0)
    near(geometry.gram_lkk[0], offsets @ offsets.T, rtol=1e-12, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 6), order=st.randoms(use_true_random=False))
def test_order_of_the_checkpoints(tmp_path_factory: pytest.TempPathFactory, count: int, order: object) -> None:
    """Another order gives the same matrix with rows and columns in that order."""
    states = random_states(count, spread=0.2)
    places = list(range(count))
    order.shuffle(places)  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("order")
    one = measure(saved(folder / "a", states), {"all": list(states[0])}).gram_lkk[0]
    other = measure(saved(folder / "b", [states[k] for k in places]), {"all": list(states[0])}).gram_lkk[0]
    near(other, one[places][:, places], rtol=1e-12, atol=1e-9)
