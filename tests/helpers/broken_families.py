"""Families of ingredients that fail for one reason each, trained for real, and one that is healthy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

NET = """
from torch import nn

def build(norm=False):
    def layer(wide):
        return [nn.Linear(wide, 64), *([nn.BatchNorm1d(64)] if norm else []), nn.ReLU()]

    return nn.Sequential(*layer(8), *layer(64), *(layer(64) + layer(64) if norm else []), nn.Linear(64, 5))
"""


def build(*, norm: bool = False) -> nn.Sequential:
    """The network of `NET`."""
    names: dict[str, Callable[..., nn.Sequential]] = {}
    exec(NET, names)
    return names["build"](norm=norm)


class Task(NamedTuple):
    """Points and their classes, most of which can be told."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def drawn(cls, count: int = 2000) -> Task:
        generator = torch.Generator().manual_seed(7)
        inputs = torch.randn(count, 8, generator=generator)
        first, second = torch.randn(8, 24, generator=generator), torch.randn(24, 5, generator=generator)
        scores = torch.tanh(inputs @ first) @ second + 0.5 * torch.randn(count, 5, generator=generator)
        return cls(inputs, scores.argmax(dim=1))

    def part(self, part: slice) -> Task:
        return Task(self.inputs[part], self.labels[part])


TASK = Task.drawn()
TRAIN, VAL = TASK.part(slice(1000, None)), TASK.part(slice(0, 1000))


def trained(net: nn.Sequential, *, steps: int, lr: float, seed: int, data: Task = TRAIN) -> nn.Sequential:
    """Steps of AdamW on random batches; the network is ready to be evaluated."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr)
    net.train()
    for _ in range(steps):
        batch = torch.randint(0, len(data.inputs), (64,), generator=generator)
        loss = nn.functional.cross_entropy(net(data.inputs[batch]), data.labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


@cache
def from_seed(seed: int, *, norm: bool = False, steps: int = 300) -> nn.Sequential:
    """A network trained from its own random numbers; made once, not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return trained(build(norm=norm), steps=steps, lr=3e-3, seed=seed)


def copy(net: nn.Sequential, *, norm: bool = False) -> nn.Sequential:
    """Another one with the same weights."""
    other = build(norm=norm)
    other.load_state_dict(net.state_dict())
    return other


@cache
def fine_tuned(
    start: nn.Sequential, *, seed: int, lr: float = 1e-3, steps: int = 60, norm: bool = False
) -> nn.Sequential:
    """A copy of `start`, trained on; made once, not to be changed."""
    return trained(copy(start, norm=norm), steps=steps, lr=lr, seed=seed)


def write(folder: Path, nets: Sequence[nn.Module], *, start: nn.Module | None = None, norm: bool = False) -> None:
    """runs/*/, start/, data/val.safetensors, net.py and soup.yaml in `folder`."""
    (folder / "data").mkdir(parents=True)
    save_file({"inputs": VAL.inputs.clone(), "labels": VAL.labels.clone()}, folder / "data/val.safetensors")
    (folder / "net.py").write_text(NET)
    (folder / "soup.yaml").write_text(
        f'model: {{python: "net.py:build", args: {{norm: {str(norm).lower()}}}}}\n'
        "val:\n  val: {arrays: data/val.safetensors}\nmetric: accuracy\nbatch_size: 1000\n"
    )
    for number, net in enumerate(nets):
        save(net.state_dict(), folder / f"runs/{number}")
    if start is not None:
        save(start.state_dict(), folder / "start")


def save(state: dict[str, Tensor], run: Path) -> None:
    """A checkpoint's folder."""
    run.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().clone() for name, tensor in state.items()}, run / "model.safetensors")
