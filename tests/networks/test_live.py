"""Weights in the live network are the exact mean, rounded once, whatever was tried, rejected or interrupted before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError, MixError
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.write_soup import write_weights
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network
from soupcli.networks.without_weights import make_without_weights
from tests.helpers.memory import Alive, Spied
from tests.helpers.network_toys import CPU

State = dict[str, Tensor]


class Net(nn.Module):
    """Floating tensors of many shapes, among them an empty one and a scalar, beside an integer and a boolean."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(3, 5, dtype=dtype))
        self.scalar = nn.Parameter(torch.zeros((), dtype=dtype))
        self.empty = nn.Parameter(torch.zeros(0, 2, dtype=dtype))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mask", torch.zeros(4, dtype=torch.bool))


def state_of(seed: int, dtype: torch.dtype = torch.float32) -> State:
    """A state dict of Net; integers and booleans differ from seed to seed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "matrix": torch.randn(3, 5, generator=generator, dtype=torch.float64).to(dtype),
        "scalar": torch.randn((), generator=generator, dtype=torch.float64).to(dtype),
        "empty": torch.zeros(0, 2, dtype=dtype),
        "count": torch.tensor(10 + seed),
        "mask": torch.tensor([True, False, True, seed % 2 == 0]),
    }


def ingredients(folder: Path, states: Sequence[State]) -> list[Checkpoint]:
    """One file for each state, opened."""
    for number, state in enumerate(states):
        save_file(state, folder / f"{number}.safetensors")
    return [open_checkpoint(folder / f"{number}.safetensors") for number in range(len(states))]


def live_net(dtype: torch.dtype = torch.float32) -> LiveNetwork:
    """An empty Net."""
    return LiveNetwork(Network(make_without_weights(lambda: Net(dtype))), CPU)


def held(live: LiveNetwork) -> State:
    """A copy of what the network holds."""
    return {name: tensor.clone() for name, tensor in live.network.module.state_dict().items()}


def written(mixture: Mixture, folder: Path) -> State:
    """What the soup's file holds."""
    folder.mkdir()
    write_weights(mixture, folder, metadata={}, max_shard_size=10**9)
    return load_file(folder / "model.safetensors")


def mean(states: Sequence[State], name: str) -> Tensor:
    """The exact mean of each element, rounded once: fractions know no rounding."""
    values = [state[name].double().reshape(-1).tolist() for state in states]
    exact = [sum(map(Fraction, column)) / len(states) for column in zip(*values, strict=True)]
    return torch.tensor([float(value) for value in exact], dtype=torch.float64).reshape(states[0][name].shape)


def assert_equal(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Same names, dtypes and bits."""
    assert state.keys() == wanted.keys()
    for name in wanted:
        assert state[name].dtype == wanted[name].dtype, name
        assert torch.equal(state[name], wanted[name]), name


def test_one_ingredient(tmp_path: Path) -> None:
    """A mixture of one is that one, integers, booleans, scalars and empty tensors included."""
    states = [state_of(0), state_of(1)]
    live = live_net()
    for state, ingredient in zip(states, ingredients(tmp_path, states), strict=True):
        live.load(Mixture.uniform([ingredient]))
        assert_equal(held(live), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_grows_as_greedy_does(tmp_path: Path, dtype: torch.dtype) -> None:
    """Over acceptances and rejections the network holds, each time, what a soup of these members is written as."""
    states = [state_of(seed, dtype) for seed in range(6)]
    files = ingredients(tmp_path, states)
    live, members = live_net(dtype), [0]
    for candidate in range(1, 6):
        trial = [*members, candidate]
        mixture = Mixture.uniform([files[i] for i in trial])
        live.load(mixture)
        state = held(live)
        assert_equal(state, written(mixture, tmp_path / f"soup{candidate}"))
        assert torch.equal(state["matrix"], mean([states[i] for i in trial], "matrix").to(dtype))
        assert state["count"] == 10  # the first member's
        if candidate % 2:
            members = trial
    live.load(Mixture.uniform([files[i] for i in members]))
    assert torch.equal(held(live)["matrix"], mean([states[i] for i in members], "matrix").to(dtype))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tries=st.lists(st.permutations(range(4)).flatmap(lambda p: st.integers(1, 4).map(lambda n: p[:n])), max_size=8))
def test_any_order_of_mixtures(tmp_path_factory: pytest.TempPathFactory, tries: list[list[int]]) -> None:
    """Whatever was loaded before, the same members give the same bits."""
    folder = tmp_path_factory.mktemp("any")
    files = ingredients(folder, [state_of(seed) for seed in range(4)])
    live = live_net()
    for members in tries:
        mixture = Mixture.uniform([files[i] for i in members])
        live.load(mixture)
        fresh = live_net()
        fresh.load(mixture)
        assert_equal(held(live), held(fresh))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(st.integers(-(2**20), 2**20), min_size=4, max_size=4), min_size=2, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_mean_of_any_numbers(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], dtype: torch.dtype
) -> None:
    """The mean is within half a unit in the last place, plus 1e-3 of one, of the exact mean, in each order."""
    folder = tmp_path_factory.mktemp("mean")
    states = [{"weight": torch.tensor([row], dtype=torch.float64).div(2**14).to(dtype)} for row in rows]
    files = ingredients(folder, states)
    results = []
    for order in (files, files[::-1]):
        live = LiveNetwork(Network(make_without_weights(lambda: nn.Linear(4, 1, bias=False, dtype=dtype))), CPU)
        live.load(Mixture.uniform(order))
        results.append(held(live)["weight"])
    for value, exact in zip(results[0].double().reshape(-1), mean(states, "weight").reshape(-1), strict=True):
        unit = max(abs(float(exact)) * torch.finfo(dtype).eps, torch.finfo(dtype).smallest_normal)
        assert abs(float(value) - float(exact)) <= 0.501 * unit
    assert torch.equal(results[0], results[1])


def test_other_weights(tmp_path: Path) -> None:
    """A mixture with weights of its own, for all tensors or for some, is what it is written as; so is the next one."""
    states = [state_of(seed) for seed in range(3)]
    files = ingredients(tmp_path, states)
    live = live_net()
    live.load(Mixture.uniform(files[:2]))
    weighted = Mixture(tuple(files), (0.2, 0.5, 0.3))
    live.load(weighted)
    assert_equal(held(live), written(weighted, tmp_path / "weighted"))
    by_layer = replace(weighted, coefficients={"matrix": (0.9, 0.1, 0.0)})
    live.load(by_layer)
    assert_equal(held(live), written(by_layer, tmp_path / "by_layer"))
    assert not torch.equal(held(live)["matrix"], load_file(tmp_path / "weighted/model.safetensors")["matrix"])
    live.load(Mixture.uniform(files))
    assert torch.equal(held(live)["matrix"], mean(states, "matrix").float())


def test_output_dtype(tmp_path: Path) -> None:
    """The network holds the weights as the soup's dtype rounds them, though it computes wider."""
    states = [state_of(seed) for seed in range(3)]
    files = ingredients(tmp_path, states)
    live = live_net()
    for members in (files[:1], files):
        live.load(Mixture.uniform(members, dtype=Dtype.BFLOAT16))
        matrix = held(live)["matrix"]
        assert matrix.dtype == torch.float32
        assert torch.equal(matrix, mean(states[: len(members)], "matrix").to(torch.bfloat16).float())


def test_mixed_dtypes(tmp_path: Path) -> None:
    """Ingredients of several dtypes are summed wide and rounded to the dtype that holds both."""
    states = [state_of(0, torch.bfloat16), state_of(1, torch.float16)]
    live = live_net()
    live.load(Mixture.uniform(ingredients(tmp_path, states)))
    assert torch.equal(held(live)["matrix"], mean(states, "matrix").float())


def test_complex(tmp_path: Path) -> None:
    """Complex tensors keep their imaginary part."""
    states = [{"spectrum": torch.randn(4, dtype=torch.complex64)} for _ in range(3)]

    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spectrum = nn.Parameter(torch.zeros(4, dtype=torch.complex64))

    live = LiveNetwork(Network(make_without_weights(Spectrum)), CPU)
    live.load(Mixture.uniform(ingredients(tmp_path, states)))
    total = torch.stack([state["spectrum"].to(torch.complex128) for state in states]).sum(dim=0)
    wanted = (total / 3).to(torch.complex64)
    assert torch.equal(held(live)["spectrum"], wanted)


def test_kept_from(tmp_path: Path) -> None:
    """Integers and booleans come from the ingredient that the mixture names."""
    files = ingredients(tmp_path, [state_of(seed) for seed in range(3)])
    live = live_net()
    live.load(Mixture.uniform(files[:2], keep_from=files[2]))
    assert held(live)["count"] == 12


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("members", [1, 3])
def test_not_finite(tmp_path: Path, bad: float, members: int) -> None:
    """A NaN or an infinity is an error that names the file, the tensor and the element."""
    states = [state_of(seed) for seed in range(3)]
    states[0]["matrix"][1, 2] = bad
    live = live_net()
    with pytest.raises(MixError, match=r"0\.safetensors: tensor 'matrix' holds -?(nan|inf) at element 7"):
        live.load(Mixture.uniform(ingredients(tmp_path, states)[:members]))


@pytest.mark.parametrize("members", [1, 2])
def test_overflow(tmp_path: Path, members: int) -> None:
    """A mean that the output dtype cannot hold is an error, in the evaluation as in the file."""
    states = [state_of(seed) for seed in range(2)]
    for state in states:
        state["matrix"][:] = 1e6
    mixture = Mixture.uniform(ingredients(tmp_path, states)[:members], dtype=Dtype.FLOAT16)
    with pytest.raises(MixError, match=r"'matrix'.*float16"):
        live_net().load(mixture)


@pytest.mark.parametrize("fail_at", [1, 2, 3])
@pytest.mark.parametrize("broken", [1, 2])
def test_interrupted(tmp_path: Path, fail_at: int, broken: int) -> None:
    """A load that broke off, at any tensor of a member or of the candidate, leaves no trace in the next ones."""
    files = ingredients(tmp_path, [state_of(seed) for seed in range(4)])
    spies = [Spied(file) for file in files]
    live = live_net()
    live.load(Mixture.uniform(spies[:2]))
    spies[broken].readings, spies[broken].fail_at = 0, fail_at
    with pytest.raises(CheckpointError, match="interrupted"):
        live.load(Mixture.uniform(spies[:3] if broken == 2 else [spies[3], *spies[:2]]))
    spies[broken].fail_at = None
    for members in ([0, 1, 2], [0, 1], [0, 1, 2, 3]):
        live.load(Mixture.uniform([spies[i] for i in members]))
        fresh = live_net()
        fresh.load(Mixture.uniform([files[i] for i in members]))
        assert_equal(held(live), held(fresh))


def test_interrupted_by_settling(tmp_path: Path) -> None:
    """Where what follows a load fails, the same weights are loaded again the next time."""
    files = ingredients(tmp_path, [state_of(0)])
    calls: list[Mixture] = []

    def settle(mixture: Mixture) -> None:
        calls.append(mixture)
        if len(calls) == 1:
            raise KeyboardInterrupt

    live = LiveNetwork(Network(make_without_weights(Net)), CPU, settle=settle)
    mixture = Mixture.uniform(files)
    with pytest.raises(KeyboardInterrupt):
        live.load(mixture)
    live.load(mixture)
    live.load(mixture)
    assert calls == [mixture, mixture]


def test_forget(tmp_path: Path) -> None:
    """After the module was in other hands, weights and evaluation mode are restored."""
    files = ingredients(tmp_path, [state_of(0)])
    live = live_net()
    live.load(Mixture.uniform(files))
    live.network.module.train()
    with torch.no_grad():
        live.network.module.get_parameter("matrix").zero_()
    live.forget()
    live.load(Mixture.uniform(files))
    assert_equal(held(live), state_of(0))
    assert not live.network.module.training


def test_only_the_candidate_is_read(tmp_path: Path) -> None:
    """Greedy reads each ingredient once for its own trial and once when it is taken in, never again."""
    spies = [Spied(file) for file in ingredients(tmp_path, [state_of(seed) for seed in range(4)])]
    live = live_net()
    for members in ([0, 1], [0, 1, 2], [0, 1, 3], [0, 1, 3]):
        live.load(Mixture.uniform([spies[i] for i in members]))
    floating, kept = 3, 2  # tensors; what is not averaged is read from the first member, once for each mixture
    assert [spy.readings for spy in spies] == [floating + 3 * kept, 2 * floating, floating, floating]


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """Eight ingredients, summed one by one or all at once, take the memory that three take."""
    size, many = 600_000, 8  # of more bytes than are read in one go
    states = [{"weight": torch.full((1, size), float(seed)), "bias": torch.zeros(1)} for seed in range(many)]
    files = ingredients(tmp_path, states)

    def peak(tries: list[list[int]]) -> int:
        alive = Alive()
        live = LiveNetwork(Network(make_without_weights(lambda: nn.Linear(size, 1))), CPU)
        spies = [Spied(file, on_read=alive.count) for file in files]
        with alive:
            for members in tries:
                live.load(Mixture.uniform([spies[i] for i in members]))
        return alive.peak

    of_three = peak([[0, 1], [0, 1, 2]])
    assert peak([list(range(n + 1)) for n in range(1, many)]) == of_three
    assert peak([list(range(many))]) <= of_three
    assert of_three < 8 * size * 6  # the sum, the trial, and what is read; far from eight of anything
