"""From coefficients to a mixture: weights, layers, a folded temperature, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from soupcli.checkpoints.dtype import Dtype
from soupcli.errors import NetworkError
from soupcli.mixing.mixture import mix
from soupcli.soups.learned.learned import Layered, _last_linear, summing_to_one
from tests.helpers.learned_family import Family, settings
from tests.helpers.learned_toys import Tied


@pytest.fixture
def toy(tmp_path: Path) -> Family:
    return Family(tmp_path / "family", members=3)


def mixed(layered: Layered, name: str) -> Tensor:
    mixture = layered.mixture(dtype=None, keep_from=None)
    spec = mixture.spec(name)
    return mix(mixture, name, start=0, count=spec.numel).view(spec.shape)


def test_mixture_is_what_was_fitted(toy: Family) -> None:
    """Each tensor of the mixture is the sum of its layer's coefficients times the ingredients."""
    layered = toy.fit(toy.ingredients(), settings(constraint="affine")).layered
    assert layered.layers == ["0", "2"]
    assert [sorted(names) for names in layered.tensors] == [["0.bias", "0.weight"], ["2.bias", "2.weight"]]
    for row, names in zip(layered.alpha_lk, layered.tensors, strict=True):
        assert sum(row) == 1.0
        for name in names:
            exact = sum(a * state[name].double() for a, state in zip(row, toy.states, strict=True))
            torch.testing.assert_close(mixed(layered, name).double(), exact, rtol=1e-7, atol=1e-8)


def test_weights_count_elements(toy: Family) -> None:
    """`weights` is the mean of the rows over all elements; equal rows are the weights and need no coefficients."""
    members = toy.ingredients()
    tensors = [["0.weight", "0.bias"], ["2.weight", "2.bias"]]
    layered = Layered(members, [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], ["0", "2"], tensors, {})
    mixture = layered.mixture(dtype=Dtype.BFLOAT16, keep_from=members[1])
    first, second = 8 * 16 + 16, 16 * 3 + 3
    assert mixture.weights == pytest.approx((first / (first + second), *[second / (first + second) / 2] * 2))
    assert mixture.coefficients is not None and set(mixture.coefficients) == {n for names in tensors for n in names}
    assert (mixture.dtype, mixture.kept) == (Dtype.BFLOAT16, members[1])
    alike = Layered(members, [[0.25, 0.25, 0.5]] * 2, ["0", "2"], tensors, {}).mixture(dtype=None, keep_from=None)
    assert (alike.weights, alike.coefficients) == ((0.25, 0.25, 0.5), None)


def test_folded_temperature(toy: Family) -> None:
    """Folded, the last layer is multiplied by beta, weight and bias: the logits are beta times those without."""
    timid = [{n: t * (0.05 if n.startswith("2.") else 1) for n, t in state.items()} for state in toy.states]
    ingredients = toy.ingredients(timid)
    assert toy.fit(ingredients, settings()).layered.scaled == {}
    folded = toy.fit(ingredients, settings(fold_temperature=True)).layered
    beta = folded.scaled["2.weight"]
    assert folded.scaled == {"2.weight": beta, "2.bias": beta} and beta > 1.5
    for row, names in zip(folded.alpha_lk, folded.tensors, strict=True):
        for name in names:
            exact = sum(a * state[name].double() for a, state in zip(row, timid, strict=True))
            scaled = exact * (beta if name.startswith("2.") else 1.0)
            torch.testing.assert_close(mixed(folded, name).double(), scaled, rtol=1e-6, atol=1e-8)


def test_folding_is_refused() -> None:
    """Where the logits are not one linear layer's, or its weights are shared, the network and the names are said."""
    with pytest.raises(NetworkError, match="the logits of Tied are not the output of one linear layer"):
        _last_linear(Tied(), None)
    with pytest.raises(NetworkError, match=r"the last layer of Tied shares 'embed\.weight' and 'head\.weight'"):
        _last_linear(Tied(), "head")
    linear = nn.Sequential(nn.Linear(2, 3, bias=False))
    assert [tuple(tensor.shape) for tensor in _last_linear(linear, "0")] == [(3, 2)]


def test_members_without_weight_are_left_out(toy: Family) -> None:
    """A start that stays keeps its members alone, with weights that say the mean exactly."""
    ingredients = toy.ingredients()
    learnt = toy.fit(
        ingredients, settings(steps=1, lr=1e-300, constraint="affine", temperature=False), start=ingredients[1:]
    )
    assert learnt.soup.kept == 0
    assert learnt.layered.members == ingredients[1:]
    assert learnt.layered.alpha_lk == [[0.5, 0.5]] * 2


def test_where_they_live_is_said(toy: Family) -> None:
    """Before the fit, once."""
    said: list[str] = []
    toy.fit(toy.ingredients(), settings(resident="disk"), say_where=lambda residence: said.append(residence.where))
    assert said == ["disk"]


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_sum_is_exactly_one(numbers: list[float]) -> None:
    """On the grid every partial sum is exact, in any order, and no coefficient moves by more than its spacing."""
    alpha_lk = torch.tensor([numbers], dtype=torch.float64)
    alpha_lk = alpha_lk - alpha_lk.mean() + 1 / len(numbers)
    rows = summing_to_one(alpha_lk)
    assert (sum(rows[0].tolist()), sum(reversed(rows[0].tolist()))) == (1.0, 1.0)
    assert (rows - alpha_lk).abs().max() <= 2.0**-48 * (len(numbers) + 1)
