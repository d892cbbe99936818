"""A small network with batch norm, tied weights and attention, files of it, and the mixture that autograd sees through.

Letters in names: l layers, k ingredients, n examples, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.open import open_checkpoint
from soupcli.mixing.mixture import Mixture
from soupcli.networks.learned.layers import Layer
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network

CPU = torch.device("cpu")
TOKENS, WIDTH, LENGTH = 7, 8, 5  # classes are tokens: the embedding is the output layer too


class Norm(nn.BatchNorm1d):
    """Batch norm that autograd sees through where its statistics are mixed in the graph."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        assert self.running_mean is not None and self.running_var is not None
        if not self.running_mean.requires_grad:
            return super().forward(input)
        unit = (input - self.running_mean[:, None]) / (self.running_var[:, None] + self.eps).sqrt()
        return unit * self.weight[:, None] + self.bias[:, None]


class Block(nn.Module):
    """Attention, then batch norm over the width."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.norm = Norm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = x + self.mlp(x)
        return mixed


class Tied(nn.Module):
    """Token ids [n, LENGTH] to logits [n, TOKENS] by an output layer that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(WIDTH, TOKENS)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


def fine_tuned(module: nn.Module, count: int, *, seed: int = 0, spread: float = 0.2) -> list[dict[str, Tensor]]:
    """State dicts of `count` networks about `module`: noise on what is floating, counters as they are."""
    generator = torch.Generator().manual_seed(seed)
    states: list[dict[str, Tensor]] = []
    for _ in range(count):
        state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        for name, tensor in state.items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * spread
                tensor += noise if name.endswith("running_var") else noise - spread / 2
        if "embed.weight" in state:
            state["head.weight"] = state["embed.weight"]
        states.append(state)
    return states


def written(folder: Path, states: Sequence[dict[str, Tensor]], dtype: torch.dtype | None = None) -> list[Checkpoint]:
    """A checkpoint of each state dict; what is tied stands in it under its first name alone."""
    found: list[Checkpoint] = []
    for number, state in enumerate(states):
        kept = {
            name: tensor.clone()
            for name, tensor in state.items()
            if name != "head.weight" or "embed.weight" not in state
        }
        if dtype is not None:
            kept = {name: t.to(dtype) if t.is_floating_point() else t for name, t in kept.items()}
        (folder / f"{number:02d}").mkdir(parents=True)
        save_file(kept, folder / f"{number:02d}/model.safetensors")
        found.append(open_checkpoint(folder / f"{number:02d}"))
    return found


def live_with(module: nn.Module, ingredients: Sequence[Checkpoint]) -> LiveNetwork:
    """The network on the CPU, in evaluation mode, filled from the first ingredient."""
    live = LiveNetwork(Network(module.eval()), CPU)
    live.load(Mixture.uniform([ingredients[0]]))
    return live


def explicit_logits(
    module: nn.Module, ingredients: Sequence[Checkpoint], layers: Sequence[Layer], alpha_lk: Tensor, inputs: Tensor
) -> Tensor:
    """What the network gives with every parameter and statistic mixed in one graph, all ingredients in memory."""
    rows = {id(tensor): row for row, layer in enumerate(layers) for tensor in layer.tensors}
    mixed: dict[str, Tensor] = {}
    for name, place in module.state_dict(keep_vars=True).items():
        if id(place) in rows and name in ingredients[0].tensors:
            stack = torch.empty((len(ingredients), *place.shape), dtype=ingredients[0].tensors[name].dtype.torch)
            for ingredient, out in zip(ingredients, stack, strict=True):
                ingredient.read(name, out)
            mixed[name] = torch.tensordot(alpha_lk[rows[id(place)]].to(place.dtype), stack.to(place.dtype), 1)
    logits: Tensor = torch.func.functional_call(module, mixed, (inputs,), tie_weights=True)
    return logits
