"""The streamed gradient and the mixture in the live network, against autograd and from wherever ingredients live."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from soupcli.checkpoints.checkpoint import NO_PLACES, Checkpoint
from soupcli.errors import MixError, NetworkError
from soupcli.networks.learned import mixed_network as gradient
from soupcli.networks.learned import offsets as sources
from soupcli.networks.learned import pieces
from soupcli.networks.learned.layers import Layer, layers
from soupcli.networks.learned.mixed_network import MixedNetwork
from soupcli.networks.learned.residence import Where
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network
from soupcli.soups.learned.fit import CONSTRAINTS
from tests.helpers.learned_toys import CPU, LENGTH, TOKENS, Tied, explicit_logits, fine_tuned, live_with, written

PLACES = get_args(Where)
COUNT = 4


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces, blocks and groups so small that even toys have many of each, and some pieces are held."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1024)
    monkeypatch.setattr(pieces, "ROW_BYTES", 200)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 4 * COUNT * 7)
    monkeypatch.setattr(sources, "HELD_BYTES", 4096)
    monkeypatch.setattr(gradient, "HELD_BYTES", 4096)


def loss_of(logits_nc: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits_nc, torch.arange(len(logits_nc)) % TOKENS)


def ids() -> Tensor:
    return torch.randint(0, TOKENS, (6, LENGTH), generator=torch.Generator().manual_seed(1))


def random_alpha(rows: int, seed: int = 0, count: int = COUNT) -> Tensor:
    """Rows that sum to 1, some of them with negative numbers."""
    free_lk = torch.randn(rows, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return free_lk - free_lk.mean(dim=1, keepdim=True) + 1.0 / count


def one_step(network: MixedNetwork, inputs: Tensor, next_lk: Tensor) -> Tensor:
    """dL/dalpha at the present weights, up to a constant for each layer; then `next_lk` is mixed."""
    taken: dict[int, Tensor] = {}

    def update(rows: slice, gradient_lk: Tensor) -> Tensor:
        taken[rows.start] = gradient_lk.clone()
        return next_lk[rows]

    loss_of(network._live.network.module(inputs)).backward()
    network.step(update)
    return torch.cat([taken[start] for start in sorted(taken)])


def test_layers_of_the_toy() -> None:
    """The granularities below are three different ones."""
    module = Tied()
    assert [len(layers(module, per=per, head="head")) for per in ("model", "layer", "tensor")] == [1, 4, 26]


@pytest.mark.parametrize("stored", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("resident", PLACES)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("per", ["model", "layer", "tensor"])
def test_equals_autograd(
    tmp_path: Path, small_pieces: None, per: Any, constraint: str, resident: Where, stored: torch.dtype
) -> None:
    """dL/d(free numbers) is autograd's through the explicit mixture to 1e-10: batch norm, tied weights, attention.

    Held at the start and after a step, and where the network is wider than what is stored.
    """
    module = Tied().double()
    ingredients = written(tmp_path, fine_tuned(module, COUNT), stored)
    live = live_with(module, ingredients)
    found = layers(module, per=per, head="head")
    start_lk = torch.full((len(found), COUNT), 1 / COUNT, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    tries = [torch.randn(start_lk.shape, generator=generator, dtype=torch.float64) * 0.5 for _ in range(2)]
    with MixedNetwork(live, ingredients, found, resident=resident) as network:
        assert network.residence.where == resident
        network.mix(CONSTRAINTS[constraint](tries[0], start_lk))
        for free_lk, next_free_lk in zip(tries, [*tries[1:], tries[0]], strict=True):
            leaf_lk = free_lk.clone().requires_grad_()
            alpha_lk = CONSTRAINTS[constraint](leaf_lk, start_lk)
            explicit = loss_of(explicit_logits(module, ingredients, found, alpha_lk, ids()))
            (wanted_lk,) = torch.autograd.grad(explicit, leaf_lk, retain_graph=True)
            streamed_lk = one_step(network, ids(), CONSTRAINTS[constraint](next_free_lk, start_lk))
            (given_lk,) = torch.autograd.grad(alpha_lk, leaf_lk, streamed_lk)
            assert wanted_lk.abs().max() > 1e-3
            torch.testing.assert_close(given_lk, wanted_lk, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_mixture(tmp_path: Path, small_pieces: None, dtype: torch.dtype) -> None:
    """What is in the network is the sum of alpha times the ingredients; a tied tensor is mixed once, as one."""
    module = Tied().to(dtype)
    states = fine_tuned(module, COUNT)
    ingredients = written(tmp_path, states)
    found = layers(module, per="tensor")
    alpha_lk = random_alpha(len(found))
    with MixedNetwork(live_with(module, ingredients), ingredients, found) as network:
        network.mix(alpha_lk)
        for layer, alpha_k in zip(found, alpha_lk, strict=True):
            exact = sum(alpha * state[layer.name].double() for alpha, state in zip(alpha_k, states, strict=True))
            error = (module.state_dict()[layer.name].double() - exact).abs().max()
            assert error <= 4 * torch.finfo(dtype).eps, layer.name
        assert network.names([module.embed.weight]) == ["embed.weight"]
    assert module.head.weight is module.embed.weight


def everything(module: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in module.state_dict().values()]


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("per", ["model", "layer", "tensor"])
def test_same_bits_everywhere(tmp_path: Path, small_pieces: None, per: Any, stored: torch.dtype) -> None:
    """Gradients and weights have the same bits from the device, host memory and disk, after two steps too."""
    outcomes: list[list[Tensor]] = []
    ingredients = written(tmp_path, fine_tuned(Tied(), COUNT), stored)
    for resident in PLACES:
        module = Tied()
        found = layers(module, per=per, head="head")
        with MixedNetwork(live_with(module, ingredients), ingredients, found, resident=resident) as network:
            network.mix(random_alpha(len(found)))
            steps = [one_step(network, ids(), random_alpha(len(found), seed)) for seed in (1, 2)]
        outcomes.append([*steps, *everything(module)])
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other, strict=True))


def test_weights_depend_on_coefficients_alone(tmp_path: Path, small_pieces: None) -> None:
    """After any steps, the same coefficients give the same bits: an interrupted fit can go on exactly."""
    ingredients = written(tmp_path, fine_tuned(Tied(), COUNT))
    module = Tied()
    found = layers(module, per="layer", head="head")
    last_lk = random_alpha(len(found), 7)
    with MixedNetwork(live_with(module, ingredients), ingredients, found, resident="disk") as network:
        network.mix(random_alpha(len(found)))
        for next_lk in (random_alpha(len(found), 1), last_lk):
            one_step(network, ids(), next_lk)
        walked = everything(module)
    other = Tied()
    found = layers(other, per="layer", head="head")
    with MixedNetwork(live_with(other, ingredients), ingredients, found, resident="disk") as network:
        network.mix(last_lk)
        assert all(torch.equal(a, b) for a, b in zip(walked, everything(other), strict=True))


class Counted:
    """A checkpoint that notes which of its tensors are read, all through `read`."""

    places = NO_PLACES

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoint, name)

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        self.names.append(name)
        self._checkpoint.read(name, out, start=start)


def counted(ingredients: Sequence[Checkpoint]) -> list[Any]:
    return [Counted(ingredient) for ingredient in ingredients]


def test_alike_is_read_once(tmp_path: Path) -> None:
    """Tensors that fine-tuning left alone are compared once, kept to the bit, never read again and never trained."""
    module = Tied()
    states = fine_tuned(module, COUNT)
    frozen = [name for name in states[0] if name.startswith("blocks.0.") or name == "embed.weight"]
    for state in states:
        state.update({name: states[0][name] for name in frozen})
    ingredients = counted(written(tmp_path, states))
    live = live_with(module, ingredients)
    found = layers(module, per="layer", head="head")
    with MixedNetwork(live, ingredients, found, resident="disk") as network:
        assert network.residence.needed < COUNT * sum(tensor.nbytes for tensor in states[0].values()) / 2
        for ingredient in ingredients:
            ingredient.names.clear()
        network.mix(random_alpha(len(found)))
        one_step(network, ids(), random_alpha(len(found), 1))
        assert not {name for ingredient in ingredients for name in ingredient.names} & set(frozen)
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        assert trained == {name for name, _ in module.named_parameters()} - set(frozen)
    for name in frozen:
        assert torch.equal(module.state_dict()[name], states[0][name]), name
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in module.parameters())


def test_disk_reads_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory nothing is read after the first step; on disk a step reads what is not held once, in one fused pass."""
    made = written(tmp_path, fine_tuned(Tied(), COUNT))

    def reads(resident: Where) -> int:
        module, ingredients = Tied(), counted(made)
        found = layers(module, per="layer", head="head")
        with MixedNetwork(live_with(module, ingredients), ingredients, found, resident=resident) as network:
            network.mix(random_alpha(len(found)))
            for ingredient in ingredients:
                ingredient.names.clear()
            one_step(network, ids(), random_alpha(len(found), 1))
        return sum(len(ingredient.names) for ingredient in ingredients)

    assert [reads(resident) for resident in PLACES] == [0, 0, 0]
    for module in (gradient, sources):
        monkeypatch.setattr(module, "HELD_BYTES", 20_000)  # a block of the network at a time
    floating = len(layers(Tied(), per="tensor"))
    assert [reads(resident) for resident in PLACES] == [0, 0, COUNT * floating]


@pytest.mark.parametrize("resident", PLACES)
def test_identical_ingredients(tmp_path: Path, resident: Where) -> None:
    """Whatever the coefficients are, ingredients that are one give that one, to the bit."""
    state = fine_tuned(Tied(), 1)[0]
    ingredients = written(tmp_path, [state] * COUNT)
    module = Tied()
    found = layers(module, per="tensor")
    with MixedNetwork(live_with(module, ingredients), ingredients, found, resident=resident) as network:
        network.mix(random_alpha(len(found)))
        assert network.residence.needed == 0
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_integer_buffers_stay(tmp_path: Path) -> None:
    """Counters differ between ingredients: they stay those of the ingredient that the network held, never cast."""
    states = fine_tuned(Tied(), COUNT)
    for number, state in enumerate(states):
        state["blocks.0.norm.num_batches_tracked"] = torch.tensor(2**40 + number)
    ingredients = written(tmp_path, states)
    module = Tied()
    found = layers(module, per="model")
    with MixedNetwork(live_with(module, ingredients), ingredients, found) as network:
        network.mix(random_alpha(1))
        one_step(network, ids(), random_alpha(1, 1))
    assert module.get_buffer("blocks.0.norm.num_batches_tracked").item() == 2**40
    assert module.get_buffer("blocks.0.norm.num_batches_tracked").dtype == torch.int64


def test_running_statistics_are_mixed(tmp_path: Path) -> None:
    """Batch-norm means and variances follow the coefficients of their layer."""
    states = fine_tuned(Tied(), COUNT)
    ingredients = written(tmp_path, states)
    module = Tied()
    found = layers(module, per="layer", head="head")
    alpha_lk = random_alpha(len(found))
    with MixedNetwork(live_with(module, ingredients), ingredients, found) as network:
        network.mix(alpha_lk)
    row = [layer.name for layer in found].index("blocks.1")
    exact = sum(a * s["blocks.1.norm.running_var"].double() for a, s in zip(alpha_lk[row], states, strict=True))
    torch.testing.assert_close(module.get_buffer("blocks.1.norm.running_var").double(), exact, rtol=1e-6, atol=1e-7)


def test_sparse_gradients(tmp_path: Path) -> None:
    """An embedding with sparse gradients gives the inner products of the dense one."""
    given: list[Tensor] = []
    for sparse in (False, True):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Embedding(TOKENS, 4, sparse=sparse), nn.Flatten(), nn.Linear(4 * LENGTH, TOKENS))
        ingredients = written(tmp_path / str(sparse), fine_tuned(module, COUNT))
        found = layers(module, per="tensor")
        with MixedNetwork(live_with(module, ingredients), ingredients, found) as network:
            network.mix(random_alpha(len(found)))
            given.append(one_step(network, ids(), random_alpha(len(found), 1)))
    torch.testing.assert_close(given[1], given[0], rtol=1e-6, atol=1e-9)


def test_not_finite(tmp_path: Path) -> None:
    """A NaN in an ingredient, or a gradient that overflows, is refused with the tensor's name and place."""
    states = fine_tuned(Tied(), COUNT)
    states[2]["blocks.1.mlp.0.weight"][1, 3] = torch.nan
    with pytest.raises(
        MixError, match=r"02/model\.safetensors: tensor 'blocks\.1\.mlp\.0\.weight' holds nan at element 11"
    ):
        networked(tmp_path / "nan", states)
    states[2]["blocks.1.mlp.0.weight"][1, 3] = 0
    network = networked(tmp_path / "inf", states)
    with network:
        network.mix(torch.full((1, COUNT), 1 / COUNT, dtype=torch.float64))
        head = network._live.network.module.get_submodule("head")
        (head(torch.ones(1, 8)).sum() * torch.inf).backward()
        with pytest.raises(NetworkError, match=r"tensor 'embed\.weight' \(layer model\): its gradient is not finite"):
            network.step(lambda rows, gradient_lk: gradient_lk)


def networked(folder: Path, states: list[dict[str, Tensor]]) -> MixedNetwork:
    ingredients = written(folder, states)
    module = Tied()
    live = LiveNetwork(Network(module.eval()), CPU)
    return MixedNetwork(live, ingredients, layers(module, per="model"))


def test_uncovered_parameters(tmp_path: Path) -> None:
    """A parameter that an ingredient does not have is refused by name, and so is one that has no place."""
    states = fine_tuned(Tied(), COUNT)
    del states[3]["blocks.0.mlp.2.bias"]
    with pytest.raises(NetworkError, match=r"03/model\.safetensors: has no tensor 'blocks\.0\.mlp\.2\.bias'"):
        networked(tmp_path / "missing", states)
    states = fine_tuned(Tied(), COUNT)
    states[1]["scale"] = torch.ones(1)
    with pytest.raises(NetworkError, match=r"01/model\.safetensors: has tensor 'scale'.* no place"):
        networked(tmp_path / "more", states)


def test_complex_is_refused(tmp_path: Path) -> None:
    """Coefficients are learned for real tensors; a complex one is named."""

    class Phase(nn.Linear):
        def __init__(self) -> None:
            super().__init__(LENGTH, TOKENS)
            self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))

    module = Phase()
    ingredients = written(tmp_path, [{n: t.clone() for n, t in module.state_dict().items()}] * 2)
    with pytest.raises(NetworkError, match=r"'phase' is torch\.complex64"):
        MixedNetwork(live_with(module, ingredients), ingredients, layers(module, per="model"))


def test_layer_names_each_tensor_once() -> None:
    """No tensor of the toy is in two layers, whatever the granularity."""
    module = Tied()
    granularities: tuple[Literal["model", "layer", "tensor"], ...] = ("model", "layer", "tensor")
    for per in granularities:
        found: list[Layer] = layers(module, per=per, head="head")
        tensors = [id(tensor) for layer in found for tensor in layer.tensors]
        assert len(tensors) == len(set(tensors)) == 26
