"""Learned soup: Appendix I of Wortsman et al. 2022 (arXiv:2203.05482).

    argmin over alpha, beta of  sum_j loss(beta * f(x_j, sum_k alpha_k theta_k), y_j)

by AdamW on one part of the validation set; the step to keep is chosen on the other part. alpha is the softmax of free
numbers (`simplex`, the paper) or free numbers that sum to 1, negative ones too (`affine`, hyperplane soups,
arXiv:2407.03641). Since dL/dalpha_k = <dL/dtheta, theta_k>, a step takes one network and one backward pass.

Letters in names: l layers, k ingredients, n examples, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.adamw import adamw

from soupcli import processes
from soupcli.datasets.holdout import split_by_class
from soupcli.errors import NetworkError
from soupcli.progress import Progress, silent

if TYPE_CHECKING:
    from soupcli.evaluation.labelled import Labelled
    from soupcli.recipe.methods import Learned

BETAS = (0.9, 0.999)
EPS = 1e-8


class AdamW:
    """Float64 values and the running moments of their gradients."""

    def __init__(self, values: Tensor) -> None:
        self.values = values.to(torch.float64)
        self.first_moment = torch.zeros_like(self.values)
        self.second_moment = torch.zeros_like(self.values)

    @torch.no_grad()
    def step(self, rows: slice, gradient: Tensor, *, number: int, lr: float, weight_decay: float = 0.0) -> None:
        """Step `number` (from 1 on) of these rows, in place."""
        adamw(
            [self.values[rows]],
            [gradient],
            [self.first_moment[rows]],
            [self.second_moment[rows]],
            [],
            [torch.tensor(float(number - 1))],
            foreach=False,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=weight_decay,
            eps=EPS,
            maximize=False,
        )

    def state(self) -> dict[str, list[list[float]]]:
        """Values and moments as plain numbers."""
        return {
            "values": self.values.tolist(),
            "first_moment": self.first_moment.tolist(),
            "second_moment": self.second_moment.tolist(),
        }

    def restore(self, state: dict[str, list[list[float]]]) -> None:
        """What `state` gave."""
        for name, numbers in state.items():
            getattr(self, name).copy_(torch.tensor(numbers, dtype=torch.float64))


ROUNDS = 10  # the held-out loss is measured after every pass over the fitted part, and at least so often
FLOOR = 0.05  # of the softmax goes to all that a greedy start left out: at 0 they could never come back


class Mixed(Protocol):
    """A network that is a function of its coefficients: `soupcli.networks.learned.mixed_network.MixedNetwork`."""

    def mix(self, alpha_lk: Tensor) -> None:
        """Weights by these coefficients."""

    def add_up(self, givers: int) -> None:
        """Of several processes: their gradients so far, added up in the order of the first `givers`."""

    def step(self, update: Callable[[slice, Tensor], Tensor]) -> None:
        """Coefficients and weights moved by `update`, from some rows and their gradient (l, k) to their next values."""


class States(Protocol):
    """Where a fit is kept between rounds, so that an interrupted one goes on."""

    def get(self) -> dict[str, Any] | None:
        """The latest state, None where there is none."""

    def put(self, state: dict[str, Any]) -> None:
        """Plain numbers, texts, lists and mappings."""


class Curves(NamedTuple):
    """Mean losses at the start and after each round: of the round's own batches, and of the held-out part."""

    steps: list[int]
    fitted: list[float]
    held_out: list[float]


class LearnedSoup(NamedTuple):
    """The coefficients with the least held-out loss, found after step `curves.steps[kept]` (0: at the start)."""

    alpha_lk: Tensor
    beta: float
    curves: Curves
    kept: int
    fitted_examples: int
    held_out_examples: int
    examples: int  # that went through the network

    @property
    def warning(self) -> str | None:
        """Says so where the fitted part gained and the held-out part did not."""
        (_, fitted, held_out), kept = self.curves, self.kept
        if fitted[-1] >= fitted[0] or held_out[-1] < held_out[0]:
            return None
        outcome = "the start was kept" if kept == 0 else f"step {self.curves.steps[kept]} was kept"
        return (
            f"the loss fell from {fitted[0]:.4f} to {fitted[-1]:.4f} on the {self.fitted_examples} fitted examples, "
            f"not on the {self.held_out_examples} held out ({held_out[0]:.4f} to {held_out[-1]:.4f}): {outcome}"
        )


def learned(
    network: Mixed,
    task: Labelled,
    start_lk: Tensor,
    settings: Learned,
    *,
    states: States | None = None,
    watch: Callable[[Curves], None] | None = None,
    progress: Progress = silent,
) -> LearnedSoup:
    """Fits coefficients from `start_lk` on; `states` is asked for a fit to go on with and given each round's.

    The result depends on no interruption. Raises NetworkError where a loss or a gradient is not finite.
    """
    return _Fit(network, task, start_lk, settings, states, watch, progress).run()


def simplex(free_lk: Tensor, start_lk: Tensor) -> Tensor:
    """Coefficients between 0 and 1 that sum to 1: the softmax, at `start_lk` (all but 0) where `free_lk` is 0."""
    absent = start_lk <= FLOOR / start_lk.shape[-1]
    low_lk = torch.where(absent, FLOOR / start_lk.shape[-1], start_lk)
    return torch.softmax(low_lk.log() + free_lk, dim=-1)


def affine(free_lk: Tensor, start_lk: Tensor) -> Tensor:
    """Coefficients that sum to 1: `start_lk` plus offsets that sum to 0, in units of 1/K."""
    return start_lk + (free_lk - free_lk.mean(dim=-1, keepdim=True)) / start_lk.shape[-1]


CONSTRAINTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"simplex": simplex, "affine": affine}


class _Fit:
    """One run of the recipe: the numbers that AdamW moves, where it stands, and the best so far."""

    def __init__(
        self,
        network: Mixed,
        task: Labelled,
        start_lk: Tensor,
        settings: Learned,
        states: States | None,
        watch: Callable[[Curves], None] | None,
        progress: Progress,
    ) -> None:
        self.network, self.task, self.settings = network, task, settings
        self.states, self.watch, self.progress = states, watch, progress
        self.start_lk = start_lk
        self.alpha_of = CONSTRAINTS[settings.constraint]
        self.fitted, self.held_out = split_by_class(task.labels, settings.holdout, seed=settings.seed)
        self.passes = math.ceil(len(self.fitted) / settings.batch_size)  # steps in one pass over the fitted part
        self.round = min(self.passes, math.ceil(settings.steps / ROUNDS))
        self.free = AdamW(torch.zeros_like(start_lk))
        self.log_beta = AdamW(torch.zeros(1, 1, dtype=torch.float64))
        self.done = 0
        self.examples = 0
        self.curves = Curves([], [], [])
        self.kept = 0
        self.best_lk, self.best_beta = start_lk, 1.0

    def run(self) -> LearnedSoup:
        kept = self.states.get() if self.states is not None else None
        if kept is not None:
            self.restore(kept)
        else:
            self.network.mix(self.start_lk)
            self.measure(self.loss_over(self.fitted))
        if self.done < self.settings.steps:
            self.network.mix(self.alpha_of(self.free.values, self.start_lk))
        self.progress("fitting", self.done, self.settings.steps)
        while self.done < self.settings.steps:
            self.fit_a_round()
        sizes = len(self.fitted), len(self.held_out)
        return LearnedSoup(self.best_lk, self.best_beta, self.curves, self.kept, *sizes, self.examples)

    def fit_a_round(self) -> None:
        """Steps until the held-out part is looked at again."""
        total, seen = 0.0, 0
        end = min(self.done + self.round, self.settings.steps)
        for step in range(self.done, end):
            indices = self.batch(step)
            total += self.backward(indices, step) * len(indices)
            seen += len(indices)
            self.network.step(partial(self.move, step))
            self.progress("fitting", step + 1, self.settings.steps)
        self.done = end
        self.measure(total / seen)

    def batch(self, step: int) -> Tensor:
        """The examples of a step: each pass takes all, in an order that its number and the seed determine."""
        number, place = divmod(step, self.passes)
        generator = torch.Generator().manual_seed((self.settings.seed << 24) + number)
        order = torch.randperm(len(self.fitted), generator=generator)
        return self.fitted[torch.split(order, self.settings.batch_size)[place]]

    def backward(self, indices: Tensor, step: int) -> float:
        """The mean loss of a batch; its gradient is in the network and goes into the step of beta."""
        total, slope = 0.0, torch.zeros_like(self.log_beta.values)
        for of_round in processes.rounds(list(self.task.batches(indices))):
            part = processes.mine(of_round)
            made = self.backward_part(part, len(indices)) if part is not None else None
            self.network.add_up(len(of_round))
            for of_part in processes.gathered(made)[: len(of_round)]:
                assert of_part is not None
                total, slope = total + of_part[0], slope + of_part[1]
        if not math.isfinite(total):
            raise NetworkError(f"step {step + 1}: the loss is {total}", hint="a smaller learned.lr")
        self.examples += len(indices)
        if self.settings.temperature:
            self.log_beta.step(slice(None), slope, number=step + 1, lr=self.lr(step))
        return total

    def backward_part(self, part: Tensor, examples: int) -> tuple[float, float]:
        """The part's share of the mean loss over so many examples, and of its derivative by the log of beta."""
        log_beta = self.log_beta.values.clone().requires_grad_(self.settings.temperature)
        loss = self.loss(part, log_beta.exp()) / examples
        if loss.requires_grad:
            torch.autograd.backward(loss)
        return float(loss.detach()), float(log_beta.grad) if log_beta.grad is not None else 0.0

    def move(self, step: int, rows: slice, gradient_lk: Tensor) -> Tensor:
        """One step of AdamW on some layers, from dL/dalpha to the next alpha."""
        with torch.enable_grad():
            free_lk = self.free.values[rows].clone().requires_grad_()
            alpha_lk = self.alpha_of(free_lk, self.start_lk[rows])
            (free_gradient_lk,) = torch.autograd.grad(alpha_lk, free_lk, gradient_lk)
        decay = self.settings.weight_decay
        self.free.step(rows, free_gradient_lk, number=step + 1, lr=self.lr(step), weight_decay=decay)
        return self.alpha_of(self.free.values[rows], self.start_lk[rows])

    def lr(self, step: int) -> float:
        """The learning rate of a step: constant, or half a cosine that ends at 0."""
        if self.settings.schedule == "constant":
            return self.settings.lr
        return self.settings.lr * (1 + math.cos(math.pi * step / self.settings.steps)) / 2

    def loss(self, indices: Tensor, beta: Tensor) -> Tensor:
        """The cross-entropy of beta times the logits, summed over examples."""
        logits_nc = self.task.logits(indices)
        return functional.cross_entropy(
            beta.to(logits_nc.dtype) * logits_nc,
            self.task.labels[indices],
            reduction="sum",
            label_smoothing=self.settings.label_smoothing,
        )

    @torch.no_grad()
    def loss_over(self, indices: Tensor) -> float:
        """The mean loss of many examples at the network's present weights."""
        beta = self.log_beta.values.exp()
        self.examples += len(indices)
        parts = processes.shared_out(list(self.task.batches(indices)), lambda part: float(self.loss(part, beta)))
        return math.fsum(loss for _, loss in parts) / len(indices)

    def measure(self, fitted: float) -> None:
        """Ends a round: the held-out loss is taken, the best kept, the state put away."""
        held_out = self.loss_over(self.held_out)
        if not math.isfinite(held_out) or not math.isfinite(fitted):
            raise NetworkError(f"after step {self.done}: the loss is {held_out}", hint="a smaller learned.lr")
        self.curves.steps.append(self.done)
        self.curves.fitted.append(fitted)
        self.curves.held_out.append(held_out)
        if held_out < min(self.curves.held_out[:-1], default=math.inf):
            self.kept = len(self.curves.steps) - 1
            if self.done:
                self.best_lk = self.alpha_of(self.free.values, self.start_lk)
                self.best_beta = float(self.log_beta.values.exp())
        if self.states is not None:
            self.states.put(self.state())
        if self.watch is not None:
            self.watch(self.curves)

    def state(self) -> dict[str, Any]:
        """All that the rest of the fit depends on; what a float64 is, its shortest decimal says exactly."""
        return {
            "done": self.done,
            "curves": self.curves._asdict(),
            "kept": self.kept,
            "best": {"alpha": self.best_lk.tolist(), "beta": self.best_beta},
            "free": self.free.state(),
            "log_beta": self.log_beta.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.done, self.kept = state["done"], state["kept"]
        self.curves = Curves(**state["curves"])
        self.best_lk = torch.tensor(state["best"]["alpha"], dtype=torch.float64)
        self.best_beta = state["best"]["beta"]
        self.free.restore(state["free"])
        self.log_beta.restore(state["log_beta"])
