"""Modules built without weights, then filled, are the modules that the same code builds and load_state_dict fills."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from soupcli.errors import NetworkError
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network
from soupcli.networks.without_weights import make_without_weights
from tests.helpers.network_toys import CPU, assert_same, filled, randomised, saved


class Tied(nn.Module):
    """One matrix under two names, tied after both layers were built."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


class Shared(nn.Module):
    """One parameter that two layers are given, and that a list keeps too."""

    def __init__(self) -> None:
        super().__init__()
        matrix = nn.Parameter(torch.randn(4, 4))
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.first.weight = matrix
        self.second.weight = matrix
        self.in_order = [self.first.weight, self.second.weight]

    def forward(self, x: Tensor) -> Tensor:
        for matrix in self.in_order:
            x = x @ matrix
        return x


class LooksAtValues(nn.Module):
    """Reads its own parameters while it is built, in every way that torch refuses without memory."""

    def __init__(self, look: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        look(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


class Derived(nn.Module):
    """A buffer that no file holds, made of a constant parameter, and one made of nothing."""

    doubled: Tensor
    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((4,), 2.0))
        self.register_buffer("doubled", self.scale.detach() * 2, persistent=False)
        self.register_buffer("frequencies", 1.0 / (torch.arange(4) + 1.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale * self.doubled * self.frequencies


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, add_bias_kv=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.attention(x[None], x[None], x[None])[0][0]
        return mixed


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4, num_layers=2, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(x)[0]
        return out


class Norms(nn.Module):
    """Batch norm with its integer counter, group norm, and parameters that a ParameterList keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.batch, self.group = nn.BatchNorm1d(4), nn.GroupNorm(2, 4)
        self.extra = nn.ParameterList([nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))])
        self.register_buffer("mask", torch.tensor([True, False, True, True]))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self.group(self.batch(x)) * self.extra[0] + self.extra[1]) * self.mask
        return y


def _dried(net: nn.Module) -> nn.Module:
    """Lazy layers learn their shapes from a first batch."""
    net(torch.zeros(2, 4))
    return net


def _copied() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, copy.deepcopy(layer))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)),
    "tied": Tied,
    "shared": Shared,
    "derived": Derived,
    "attention": Attention,
    "recurrent": Recurrent,
    "norms": Norms,
    "copied": _copied,
    "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 3)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
    "weight_norm_on_lstm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), Recurrent()),
    "lazy_dried": lambda: _dried(nn.Sequential(nn.Linear(4, 5), nn.LazyLinear(3))),
    "moved": lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).to("cpu").double().float(),
    "item": lambda: LooksAtValues(lambda weight: weight.sum().item()),
    "numpy": lambda: LooksAtValues(lambda weight: weight.detach().numpy().mean()),
    "list": lambda: LooksAtValues(lambda weight: weight.tolist()),
    "condition": lambda: LooksAtValues(lambda weight: bool((weight == weight).all())),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_filled_equals_load_state_dict(kind: str, tmp_path: Path) -> None:
    """Every tensor and the output of a filled network have the bits that load_state_dict(strict=True) gives."""
    torch.manual_seed(0)
    source = randomised(BUILDERS[kind]())
    folder = saved(source, tmp_path)
    reference = BUILDERS[kind]()
    reference.load_state_dict(source.state_dict(), strict=True)
    module = filled(BUILDERS[kind], folder)
    assert_same(module, reference.eval())
    inputs = torch.randn(5, 4)
    with torch.no_grad():
        assert torch.equal(module(inputs), reference(inputs))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_weight_norm_of_old(tmp_path: Path) -> None:
    """The weight that hooks keep as a plain attribute is computed anew from what was filled in."""

    def build() -> nn.Module:
        return nn.utils.weight_norm(nn.Linear(4, 3))

    reference = randomised(build())
    module = filled(build, saved(reference, tmp_path))
    inputs = torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(module(inputs), reference(inputs))


@pytest.mark.parametrize(
    "kind", ["linear", "tied", "shared", "attention", "recurrent", "norms", "weight_norm", "moved"]
)
def test_takes_no_memory(kind: str) -> None:
    """Parameters are on the meta device, buffers are not, and nothing is in training mode."""
    module = make_without_weights(BUILDERS[kind])
    assert all(parameter.is_meta for parameter in module.parameters())
    assert not any(buffer.is_meta for buffer in module.buffers())
    assert not any(part.training for part in module.modules())


def test_moved_keeps_dtype_and_no_memory() -> None:
    """`.to(device, dtype)` and `.half()` in the user's code change the dtype and bring no memory back."""
    module = make_without_weights(lambda: nn.Linear(2, 2).to("cpu", torch.bfloat16))
    assert module.weight.is_meta
    assert module.weight.dtype == torch.bfloat16
    half = make_without_weights(lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).half())
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.float16, torch.int64}
    assert half.get_buffer("1.running_mean").device == CPU


@pytest.mark.parametrize("kind", [*BUILDERS, "fails"])
def test_random_state_is_left_alone(kind: str) -> None:
    """Whether building goes well, is done twice or fails, torch's generator goes on as if nothing had been built."""

    def fails() -> nn.Module:
        nn.Linear(3, 3)
        raise KeyError("no such head")

    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    if kind == "fails":
        with pytest.raises(KeyError):
            make_without_weights(fails)
    else:
        make_without_weights(BUILDERS[kind])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_torch_is_itself_afterwards() -> None:
    """After failures, also nested ones, modules are built with memory and moved as ever."""
    methods = nn.Module.register_parameter, nn.Module._apply

    def inner() -> nn.Module:
        raise NotImplementedError("inside")

    def outer() -> nn.Module:
        make_without_weights(lambda: nn.Linear(2, 2))
        return make_without_weights(inner)

    with pytest.raises(NotImplementedError, match="inside"):
        make_without_weights(outer)
    assert (nn.Module.register_parameter, nn.Module._apply) == methods
    assert not nn.Linear(2, 2).to("cpu").weight.is_meta


def test_nested_building() -> None:
    """A builder that itself builds without weights gives a network without weights."""
    module = make_without_weights(lambda: nn.Sequential(make_without_weights(lambda: nn.Linear(2, 2)), nn.Linear(2, 2)))
    assert all(parameter.is_meta for parameter in module.parameters())


def test_lazy_layers_need_a_batch() -> None:
    """A layer whose shape nobody knows yet is an error that says what to do, not a crash."""
    network = Network(make_without_weights(lambda: nn.Sequential(nn.LazyLinear(3))))
    with pytest.raises(NetworkError, match="LazyLinear has no shape before its first batch"):
        LiveNetwork(network, CPU)
