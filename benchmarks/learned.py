"""The learned soup's gradient, streamed, beside the explicit mixture: memory, time of a step, time to a loss.

    python benchmarks/learned.py                                  # make bench-learned: all parts, 10 minutes on 2 cores
    python benchmarks/learned.py --parts memory --ingredients 4 16

The explicit mixture is what autograd does without help: all ingredients stacked in memory, mixed parameters by
`torch.func.functional_call`. Ingredients are copies of one network with noise, read from files in the page cache; the
losses are those of the real ingredients of `soup demo digits`. Runs that are compared take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `soup` does

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from soupcli.checkpoints.find import find
from soupcli.datasets import arrays
from soupcli.demo import digits
from soupcli.demo.digits_network import build
from soupcli.evaluation.labelled_set import LabelledSet
from soupcli.networks.learned.layers import Layer, layers
from soupcli.networks.learned.mixed_network import MixedNetwork
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Batch, Network
from soupcli.recipe.methods import Learned
from soupcli.recipe.sets import ArraysSet
from soupcli.soups.learned.choice import learned

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.soups.learned.fit import Curves

CPU = torch.device("cpu")
WIDTH, DEPTH, TOKENS, BATCH, CLASSES = 384, 12, 16, 8, 10
Per = Literal["model", "layer", "tensor"]
Mode = Literal["auto", "disk", "explicit"]
GRANULARITIES: tuple[Per, ...] = ("model", "layer", "tensor")
MODES: tuple[Mode, ...] = ("auto", "disk")  # where the ingredients live
WHERE: dict[Literal["host", "disk"], str] = {"host": "in memory", "disk": "from disk"}


class Transformer(nn.Module):
    """A classifier of the size of ViT-S: 21 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(48, WIDTH)
        blocks = [
            nn.TransformerEncoderLayer(WIDTH, 6, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(DEPTH)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.stem(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        logits_bc: Tensor = self.head(self.norm(hidden.mean(dim=1)))
        return logits_bc


class Explicit:
    """The mixture that autograd differentiates: every ingredient in memory, and a copy of the network in each graph."""

    def __init__(self, module: nn.Module, ingredients: Sequence[Checkpoint], found: Sequence[Layer]) -> None:
        self.module = module
        rows = {id(tensor): row for row, layer in enumerate(found) for tensor in layer.tensors}
        places = module.state_dict(keep_vars=True)
        self.rows = {name: rows[id(places[name])] for name in places}
        self.stacks = {}
        for name, (shape, dtype) in ingredients[0].tensors.items():
            self.stacks[name] = torch.empty((len(ingredients), *shape), dtype=dtype.torch)
            for ingredient, row in zip(ingredients, self.stacks[name], strict=True):
                ingredient.read(name, row)
        self.kept: dict[str, Tensor] | None = None

    def mix(self, alpha_lk: Tensor) -> None:
        self.alpha_lk = alpha_lk.float().requires_grad_()
        self.kept = None

    def mixed(self) -> dict[str, Tensor]:
        return {name: torch.tensordot(self.alpha_lk[self.rows[name]], stack, 1) for name, stack in self.stacks.items()}

    def forward(self, inputs: Batch) -> Tensor:
        if torch.is_grad_enabled():
            weights = self.mixed()
        else:
            weights = self.kept = self.kept or self.mixed()
        logits_bc: Tensor = torch.func.functional_call(self.module, weights, (inputs,))
        return logits_bc

    def add_up(self, givers: int) -> None:
        """One process alone: its gradient is the gradient."""

    def step(self, update: Callable[[slice, Tensor], Tensor]) -> None:
        assert self.alpha_lk.grad is not None
        gradient_lk = self.alpha_lk.grad.double()
        self.mix(update(slice(0, len(gradient_lk)), gradient_lk - gradient_lk.mean(dim=1, keepdim=True)))


def family(folder: Path, count: int) -> list[Checkpoint]:
    """`count` copies of one network with noise, 85 MB each, in the page cache."""
    torch.manual_seed(0)
    start = Transformer().state_dict()
    for number in range(count):
        run = folder / f"{number:02d}" / "model.safetensors"
        if not run.exists():
            run.parent.mkdir(parents=True, exist_ok=True)
            generator = torch.Generator().manual_seed(number)
            noisy = {name: t + 0.01 * torch.randn(t.shape, generator=generator) for name, t in start.items()}
            save_file(noisy, run)
    return list(find([str(folder / f"{number:02d}") for number in range(count)]).checkpoints)


def loss_of(logits: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, torch.arange(len(logits)) % CLASSES)


def peak_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def one_process(folder: Path, mode: str, count: int, per: Per) -> None:
    """Three steps, then the peak memory as JSON: `plain` is network, gradient and activations alone."""
    ingredients = family(folder, count)
    module = Transformer().eval()
    inputs = torch.randn(BATCH, TOKENS, 48)
    found = layers(module, per=per, head="head")
    alpha_lk = torch.full((len(found), count), 1.0 / count, dtype=torch.float64)
    if mode == "streamed":
        live = LiveNetwork(Network(module), CPU)
        with MixedNetwork(live, ingredients, found, resident="disk") as network:
            network.mix(alpha_lk)
            for _ in range(3):
                loss_of(module(inputs)).backward()
                network.step(lambda rows, _gradient_lk: alpha_lk[rows])
    elif mode == "explicit":
        mixture = Explicit(module, ingredients, found)
        mixture.mix(alpha_lk)
        for _ in range(3):
            loss_of(mixture.forward(inputs)).backward()
            mixture.step(lambda rows, _gradient_lk: alpha_lk[rows])
    else:
        for _ in range(3):
            module.zero_grad(set_to_none=True)
            loss_of(module(inputs)).backward()
    print(json.dumps({"peak": peak_bytes()}))


def measure_memory(folder: Path, counts: Sequence[int], per: str) -> None:
    """Peak memory of a process of its own for each number of ingredients."""
    family(folder, max(counts))
    plain = in_own_process(folder, "plain", 1, per)
    print(f"memory: network, gradient and activations {plain / 1e6:.0f} MB; above that, in disk mode, per {per}")
    print("ingredients   on disk   streamed   explicit   explicit / streamed")
    above: list[float] = []
    for count in counts:
        size = sum(file.size for c in family(folder, count) for file in c.files)
        streamed = in_own_process(folder, "streamed", count, per) - plain
        explicit = in_own_process(folder, "explicit", count, per) - plain
        above.append(streamed)
        shown = [f"{value / 1e6:.0f} MB" for value in (size, streamed, explicit)]
        print(f"{count:11} {shown[0]:>9} {shown[1]:>10} {shown[2]:>10} {explicit / streamed:>21.1f}", flush=True)
    print(f"largest {max(above) / 300e6:.2f} of 300 MB; largest / smallest {max(above) / min(above):.3f}\n")


def in_own_process(folder: Path, mode: str, count: int, per: str) -> int:
    words = [sys.executable, __file__, "--child", mode, str(count), per, "--folder", str(folder)]
    peak: int = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout)["peak"]
    return peak


def measure_step(folder: Path, count: int, rounds: int) -> None:
    """Wall time of a step, against forward + backward + 2 x reading all ingredients once.

    In memory is what a run does where the ingredients fit; from disk is what it does where they do not.
    """
    ingredients = family(folder, count)
    module = Transformer().eval()
    live = LiveNetwork(Network(module), CPU)
    inputs = torch.randn(BATCH, TOKENS, 48)
    size = sum(file.size for ingredient in ingredients for file in ingredient.files)
    print(f"step: {count} ingredients of {size / count / 1e6:.0f} MB, page cache warm; medians of {rounds}")
    print("per      ingredients   forward + backward   read once   step   step / (f + b + 2 reads)")
    for per, where in product(GRANULARITIES, WHERE):
        found = layers(module, per=per, head="head")
        alpha_lk = torch.full((len(found), count), 1.0 / count, dtype=torch.float64)
        times: dict[str, list[float]] = {"fb": [], "read": [], "step": []}
        with MixedNetwork(live, ingredients, found, resident=where) as network:
            network.mix(alpha_lk)
            whole_step(network, module, inputs, alpha_lk)  # the first one reads what is kept
            for _ in range(rounds):
                times["read"].append(seconds(partial(read_once, ingredients)))
                times["fb"].append(seconds(partial(forward_backward, module, inputs)))
                module.zero_grad(set_to_none=True)
                times["step"].append(seconds(partial(whole_step, network, module, inputs, alpha_lk)))
        fb, read, whole = (statistics.median(times[key]) for key in ("fb", "read", "step"))
        ratios = [s / (f + 2 * r) for f, r, s in zip(times["fb"], times["read"], times["step"], strict=True)]
        shown = f"{per:8} {WHERE[where]:11} {fb:20.3f} s {read:9.3f} s {whole:6.3f} s"
        print(f"{shown} {statistics.median(ratios):10.2f}", flush=True)
    print()


def forward_backward(module: nn.Module, inputs: Tensor) -> None:
    loss_of(module(inputs)).backward()


def whole_step(network: MixedNetwork, module: nn.Module, inputs: Tensor, alpha_lk: Tensor) -> None:
    forward_backward(module, inputs)
    network.step(lambda rows, _gradient_lk: alpha_lk[rows])


def read_once(ingredients: Sequence[Checkpoint]) -> None:
    for ingredient in ingredients:
        for name, spec in ingredient.tensors.items():
            ingredient.read(name, torch.empty(spec.shape, dtype=spec.dtype.torch))


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure_loss(folder: Path, repeats: int) -> None:
    """Time until the held-out loss is what the explicit mixture ends with, on real ingredients."""
    digits.make(folder)
    ingredients = list(find([str(folder / "runs/*/")]).checkpoints)
    examples = arrays.load(ArraysSet(arrays=folder / "data/val.safetensors"))
    print(f"loss: {len(ingredients)} ingredients of soup demo digits; medians of {repeats} runs of 100 steps")
    print("per      held out    explicit   streamed   from disk   streamed / explicit   from disk / explicit")
    for per in GRANULARITIES:
        settings = Learned(per=per)
        times: dict[str, list[float]] = {"explicit": [], "auto": [], "disk": []}
        target = 0.0
        for _ in range(repeats):
            target, taken = fit(ingredients, examples, settings, "explicit", None)
            times["explicit"].append(taken)
            for mode in MODES:
                times[mode].append(fit(ingredients, examples, settings, mode, target)[1])
        explicit, auto, disk = (statistics.median(times[key]) for key in times)
        print(
            f"{per:8} {target:8.4f} {explicit:9.2f} s {auto:8.2f} s {disk:9.2f} s {auto / explicit:15.2f} "
            f"{disk / explicit:21.2f}",
            flush=True,
        )
    print()


def fit(
    ingredients: Sequence[Checkpoint], examples: Any, settings: Learned, mode: Mode, target: float | None
) -> tuple[float, float]:
    """The least held-out loss, and the seconds after which it (or `target`, within 1 in 1,000) was reached."""
    module = build().eval()
    found = layers(module, per=settings.per, head="head")
    start_lk = torch.full((len(found), len(ingredients)), 1.0 / len(ingredients), dtype=torch.float64)
    at: list[tuple[float, float]] = []

    def watch(curves: Curves) -> None:
        at.append((curves.held_out[-1], time.perf_counter() - began))

    began = time.perf_counter()
    if mode == "explicit":
        mixture = Explicit(module, ingredients, found)
        task = LabelledSet(examples, lambda: mixture.forward, "val", CPU, 64)
        learned(mixture, task, start_lk, settings, watch=watch)
    else:
        live = LiveNetwork(Network(module), CPU)
        task = LabelledSet(examples, lambda: module, "val", CPU, 64)
        with MixedNetwork(live, ingredients, found, resident=mode) as network:
            learned(network, task, start_lk, settings, watch=watch)
    wanted = min(loss for loss, _ in at) if target is None else target * 1.001
    return wanted, next(taken for loss, taken in at if loss <= wanted)


def main() -> None:
    """Runs the parts and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=("memory", "step", "loss"), default=["memory", "step", "loss"])
    parser.add_argument("--ingredients", nargs="+", type=int, default=[4, 16, 64])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where ingredients are made and kept (default: a temporary folder)")
    parser.add_argument("--child", nargs=3, metavar=("MODE", "COUNT", "PER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        mode, count, per = options.child
        one_process(options.folder, mode, int(count), per)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if "memory" in options.parts:
            measure_memory(folder / "noise", options.ingredients, "layer")
        if "step" in options.parts:
            measure_step(folder / "noise", min(16, max(options.ingredients)), options.rounds)
        if "loss" in options.parts:
            measure_loss(folder / "digits", repeats=3)


if __name__ == "__main__":
    main()
