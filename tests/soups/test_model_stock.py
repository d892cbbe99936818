"""Model Stock and interpolation, against the formulas written out over whole vectors in float64."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.open import open_checkpoint
from soupcli.mixing.mixture import mix
from soupcli.soups.model_stock import mean_cosine, ratio, stock
from soupcli.soups.weighted import interpolated

GROUPS = {"body": ["body.weight", "body.bias"], "head": ["head.weight"]}


def state(seed: int, scale: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"body.weight": (4, 6), "body.bias": (4,), "head.weight": (3, 4)}
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(folder: Path, states: list[dict[str, Tensor]]) -> list[Checkpoint]:
    for number, one in enumerate(states):
        save_file(one, folder / f"{number}.safetensors")
    return [open_checkpoint(folder / f"{number}.safetensors") for number in range(len(states))]


def by_hand(base: dict[str, Tensor], states: list[dict[str, Tensor]], names: list[str]) -> tuple[float, float]:
    """Equations of the paper: the mean cosine of the angles between offsets, and t."""
    offsets = [torch.cat([(s[name].double() - base[name].double()).flatten() for name in names]) for s in states]
    cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in itertools.combinations(offsets, 2)]
    cosine, k = sum(cosines) / len(cosines), len(states)
    return cosine, k * cosine / ((k - 1) * cosine + 1)


@pytest.mark.parametrize("k", [2, 3, 6])
def test_equals_the_formula(tmp_path: Path, k: int) -> None:
    """Cosine, ratio and every tensor of the soup, layer by layer, for any number of ingredients."""
    base, common = state(100, 1.0), state(200, 0.05)
    moved = [{n: base[n] + common[n] + noise[n] for n in base} for noise in (state(i, 0.05) for i in range(k))]
    *ingredients, start = write(tmp_path, [*moved, base])
    stocked = stock(ingredients, start, GROUPS)
    mixture = stocked.layered.mixture(dtype=None, keep_from=None)
    for number, names in enumerate(GROUPS.values()):
        cosine, t = by_hand(base, moved, names)
        assert 0 < t < 1
        assert stocked.cosines[number] == pytest.approx(cosine, rel=1e-9)
        assert stocked.ratios[number] == pytest.approx(t, rel=1e-9)
        for name in names:
            mean = sum(one[name].double() for one in moved) / k
            expected = t * mean + (1 - t) * base[name].double()
            found = mix(mixture, name, start=0, count=base[name].numel()).view(base[name].shape)
            assert torch.allclose(found.double(), expected, rtol=1e-6, atol=1e-9)


def test_nearest_to_the_centre(tmp_path: Path) -> None:
    """Of all points between base and mean the soup is the nearest to the centre that ingredients scatter around."""
    generator = torch.Generator().manual_seed(0)
    base, shift = torch.zeros(20_000), torch.randn(20_000, generator=generator)
    moved = [shift + torch.randn(20_000, generator=generator) for _ in range(3)]
    *ingredients, start = write(tmp_path, [{"w": one} for one in (*moved, base)])
    t = stock(ingredients, start, {"w": ["w"]}).ratios[0]
    mean = sum(moved) / 3
    distance = {a: float((a * mean - shift).norm()) for a in torch.linspace(0, 1, 101).tolist()}
    assert t == pytest.approx(min(distance, key=distance.__getitem__), abs=0.02)


@given(k=st.integers(2, 5), cosine=st.floats(-1, 1))
def test_ratio_stays_between(k: int, cosine: float) -> None:
    """t is 0 at right angles and beyond, 1 where all point one way, and rises between."""
    t, further = (float(ratio(torch.tensor([c]), k)) for c in (cosine, min(1.0, cosine + 0.01)))
    assert 0 <= t <= further <= 1
    assert float(ratio(torch.tensor([0.0]), k)) == 0
    assert float(ratio(torch.tensor([1.0]), k)) == pytest.approx(1)


def test_what_does_not_move() -> None:
    """A frozen layer has nothing to decide; an ingredient that alone did not move is at a right angle to the others."""
    still, one_still = torch.zeros(1, 3, 3), torch.diag(torch.tensor([4.0, 4.0, 0.0]))[None]
    one_still[0, 0, 1] = one_still[0, 1, 0] = 4.0
    assert mean_cosine(still).tolist() == [1.0]
    assert mean_cosine(one_still).tolist() == [pytest.approx(1 / 3)]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weights", [None, [0.75, 0.25]])
def test_interpolated(tmp_path: Path, alpha: float, weights: list[float] | None) -> None:
    """Every tensor is (1 - α) base + α (weighted mean); members without weight are not members."""
    base, states = state(9, 1.0), [state(1, 1.0), state(2, 1.0)]
    *ingredients, start = write(tmp_path, [*states, base])
    mixture = interpolated(ingredients, weights, start, alpha)
    shares = weights or [0.5, 0.5]
    for name in base:
        mean = sum(share * one[name].double() for share, one in zip(shares, states, strict=True))
        expected = (1 - alpha) * base[name].double() + alpha * mean
        found = mix(mixture, name, start=0, count=base[name].numel()).view(base[name].shape)
        assert torch.equal(found, expected.float()) or torch.allclose(found.double(), expected, rtol=2e-7, atol=0)
    assert len(mixture.members) == {0.0: 1, 0.3: 3, 1.0: 2}[alpha]
    assert math.fsum(mixture.weights) == pytest.approx(1)
    assert mixture.kept is ingredients[0]
