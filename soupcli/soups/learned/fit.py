"""One fit of mixing coefficients: Appendix I of Wortsman et al. 2022 (arXiv:2203.05482).

    argmin over alpha, beta of  sum_j loss(beta * f(x_j, sum_k alpha_k theta_k), y_j)

by AdamW on one part of the validation set; the other part measures how good each step is. alpha is the softmax of free
numbers (`simplex`, the paper) or free numbers that sum to 1, negative ones too (`affine`, hyperplane soups,
arXiv:2407.03641). Since dL/dalpha_k = <dL/dtheta, theta_k>, a step takes one network and one backward pass.
`learned_choice` divides the set and chooses the step.

Losses that are measured are those of the soup that is written: without beta, unless it is folded into the soup.

Letters in names: l layers, k ingredients, n examples, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from soupcli import processes
from soupcli.errors import NetworkError
from soupcli.late import functional, no_grad, torch
from soupcli.metrics.multilabel import binary_cross_entropy
from soupcli.soups.learned.adamw import AdamW

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.evaluation.labelled_set import LabelledSet
    from soupcli.progress import Progress
    from soupcli.recipe.methods import Learned

ROUNDS = 10  # the held-out loss is measured after every pass over the fitted part, and at least so often
FLOOR = 0.05  # of the softmax goes to all that a greedy start left out: at 0 they could never come back


class Mixed(Protocol):
    """A network that is a function of its coefficients: `soupcli.networks.learned.mixed_network.MixedNetwork`."""

    def mix(self, alpha_lk: Tensor) -> None:
        """Fill the network with the mixture of these coefficients."""

    def add_up(self, givers: int) -> None:
        """Add up the gradients of the first `givers` processes, in their order."""

    def step(self, update: Callable[[slice, Tensor], Tensor]) -> None:
        """Move coefficients and weights. `update` maps some rows and their gradient (l, k) to the next values."""


class Curves(NamedTuple):
    """Mean losses at the start and after each round, of the round's batches and of the held-out part."""

    steps: list[int]
    fitted: list[float]
    held_out: list[float]


class Round(NamedTuple):
    """The state of a fit after `step` steps. Gains are those of single held-out examples over the start."""

    step: int
    fitted: float  # mean loss of the batches since the round before
    held_out: float  # mean loss of the held-out part
    gain: float  # sum
    square: float  # sum of squares
    most: float  # the largest, either way
    alpha: list[list[float]]
    beta: float


class FitSplit(NamedTuple):
    """The indices of the fitted examples, and of the held-out ones."""

    fitted: Tensor
    held_out: Tensor


def curves_of(rounds: list[Round]) -> Curves:
    """Return the losses of rounds."""
    return Curves([r.step for r in rounds], [r.fitted for r in rounds], [r.held_out for r in rounds])


def simplex(free_lk: Tensor, start_lk: Tensor) -> Tensor:
    """Coefficients between 0 and 1 that sum to 1: the softmax, at `start_lk` (all but 0) if `free_lk` is 0."""
    absent = start_lk <= FLOOR / start_lk.shape[-1]
    low_lk = torch.where(absent, FLOOR / start_lk.shape[-1], start_lk)
    return torch.softmax(low_lk.log() + free_lk, dim=-1)


def affine(free_lk: Tensor, start_lk: Tensor) -> Tensor:
    """Coefficients that sum to 1: `start_lk` plus offsets that sum to 0, in units of 1/K."""
    return start_lk + (free_lk - free_lk.mean(dim=-1, keepdim=True)) / start_lk.shape[-1]


CONSTRAINTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"simplex": simplex, "affine": affine}


class Fit:
    """One fit: the numbers that AdamW moves, the present step, and the rounds so far.

    `save` is called with the state after each round. Raises NetworkError if a loss or a gradient is not finite.
    """

    def __init__(
        self,
        network: Mixed,
        task: LabelledSet,
        start_lk: Tensor,
        settings: Learned,
        part: FitSplit,
        *,
        save: Callable[[dict[str, Any]], None],
        watch: Callable[[Curves], None] | None,
        progress: Progress,
    ) -> None:
        self.network, self.task, self.settings = network, task, settings
        self.save, self.watch, self.progress = save, watch, progress
        self.start_lk = start_lk
        self.alpha_of = CONSTRAINTS[settings.constraint]
        self.fitted, self.held_out = part
        self.passes = math.ceil(len(self.fitted) / settings.batch_size)  # steps in one pass over the fitted part
        self.round = min(self.passes, math.ceil(settings.steps / ROUNDS))
        self.free = AdamW(torch.zeros_like(start_lk))
        self.log_beta = AdamW(torch.zeros(1, 1, dtype=torch.float64))
        self.done = 0
        self.examples = 0
        self.rounds: list[Round] = []
        self.start_losses_n = torch.empty(0)  # of the held-out part

    def run(self, state: dict[str, Any] | None = None) -> list[Round]:
        """Run all rounds, from the start or from a state that `save` got."""
        if state is not None:
            self.restore(state)
        if self.done < self.settings.steps or not self.rounds:
            self.network.mix(self.start_lk)
            self.start_losses_n = self.losses_of(self.held_out)
        if not self.rounds:
            self.examples += len(self.fitted) + len(self.held_out)
            self.measure(_mean(self.losses_of(self.fitted)), self.start_losses_n)
        if self.done < self.settings.steps:
            self.network.mix(self.alpha_of(self.free.values, self.start_lk))
        self.progress("fitting", self.done, self.settings.steps)
        while self.done < self.settings.steps:
            self.fit_a_round()
        return self.rounds

    def fit_a_round(self) -> None:
        """Fit until the held-out part is measured again."""
        total, seen = 0.0, 0
        end = min(self.done + self.round, self.settings.steps)
        for step in range(self.done, end):
            indices = self.batch(step)
            total += self.backward(indices, step) * len(indices)
            seen += len(indices)
            self.network.step(partial(self.move, step))
            self.progress("fitting", step + 1, self.settings.steps)
        self.done = end
        self.examples += len(self.held_out)
        self.measure(total / seen, self.losses_of(self.held_out))

    def batch(self, step: int) -> Tensor:
        """Return the examples of a step. Each pass visits all, in an order set by its number and the seed."""
        number, place = divmod(step, self.passes)
        generator = torch.Generator().manual_seed((self.settings.seed << 24) + number)
        order = torch.randperm(len(self.fitted), generator=generator)
        return self.fitted[torch.split(order, self.settings.batch_size)[place]]

    def backward(self, indices: Tensor, step: int) -> float:
        """Return the measured mean loss of a batch. Its gradient goes into the network and into the step of beta."""
        total, shown, slope = 0.0, 0.0, torch.zeros_like(self.log_beta.values)
        for of_round in processes.rounds(list(self.task.batches(indices))):
            part = processes.own_item(of_round)
            made = self.backward_part(part, len(indices)) if part is not None else None
            self.network.add_up(len(of_round))
            for of_part in processes.gathered(made)[: len(of_round)]:
                assert of_part is not None
                total, shown, slope = total + of_part[0], shown + of_part[1], slope + of_part[2]
        if not math.isfinite(total):
            raise NetworkError(f"step {step + 1}: the loss is {total}", hint="a smaller learned.lr")
        self.examples += len(indices)
        if self.settings.temperature:
            self.log_beta.step(slice(None), slope, number=step + 1, lr=self.lr(step))
        return shown

    def backward_part(self, part: Tensor, examples: int) -> tuple[float, float, float]:
        """Return a part's share of the mean loss, as fitted and as measured, and its derivative by log beta."""
        log_beta = self.log_beta.values.clone().requires_grad_(self.settings.temperature)
        logits_nc = self.task.logits(part)
        loss = self.loss(logits_nc, part, log_beta.exp()).sum() / examples
        if loss.requires_grad:
            torch.autograd.backward(loss)
        with torch.no_grad():
            shown = self.loss(logits_nc, part, self.measured_beta()).sum() / examples
        slope = float(log_beta.grad) if log_beta.grad is not None else 0.0
        return float(loss.detach()), float(shown), slope

    def move(self, step: int, rows: slice, gradient_lk: Tensor) -> Tensor:
        """Take one step of AdamW on some layers, from dL/dalpha to the next alpha."""
        with torch.enable_grad():
            free_lk = self.free.values[rows].clone().requires_grad_()
            alpha_lk = self.alpha_of(free_lk, self.start_lk[rows])
            # The gradient of a sum is that of alpha; a gradient that is passed to `grad` would make it import sympy.
            (free_gradient_lk,) = torch.autograd.grad((alpha_lk * gradient_lk).sum(), free_lk)
        decay = self.settings.weight_decay
        self.free.step(rows, free_gradient_lk, number=step + 1, lr=self.lr(step), weight_decay=decay)
        return self.alpha_of(self.free.values[rows], self.start_lk[rows])

    def lr(self, step: int) -> float:
        """Return the learning rate of a step: constant, or half a cosine that ends at 0."""
        if self.settings.schedule == "constant":
            return self.settings.lr
        return self.settings.lr * (1 + math.cos(math.pi * step / self.settings.steps)) / 2

    def measured_beta(self) -> Tensor:
        """The factor beta that the written soup has."""
        beta = self.log_beta.values.exp()
        return beta if self.settings.fold_temperature else torch.ones_like(beta)

    def loss(self, logits_nc: Tensor, indices: Tensor, beta: Tensor) -> Tensor:
        """Return the cross-entropy of beta times the logits, [n]; for multi-label rows the mean binary one."""
        labels, smoothing = self.task.labels[indices], self.settings.label_smoothing
        scaled_nc = beta.to(logits_nc.dtype) * logits_nc
        if labels.dim() == 2:
            return binary_cross_entropy(scaled_nc, labels, label_smoothing=smoothing)
        return functional.cross_entropy(scaled_nc, labels, reduction="none", label_smoothing=smoothing)

    @no_grad
    def losses_of(self, indices: Tensor) -> Tensor:
        """Return the losses of many examples at the network's present weights, float64 [n], in the order of batches."""
        beta = self.measured_beta()

        def of_part(part: Tensor) -> list[float]:
            losses: list[float] = self.loss(self.task.logits(part), part, beta).tolist()
            return losses

        parts = processes.shared_out(list(self.task.batches(indices)), of_part)
        return torch.tensor([loss for _, losses in parts for loss in losses], dtype=torch.float64)

    def measure(self, fitted: float, losses_n: Tensor) -> None:
        """End a round: compare the held-out losses with the start's, and save the state."""
        held_out = _mean(losses_n)
        if not math.isfinite(held_out) or not math.isfinite(fitted):
            raise NetworkError(f"after step {self.done}: the loss is {held_out}", hint="a smaller learned.lr")
        gain_n = self.start_losses_n - losses_n
        gain, square = math.fsum(gain_n.tolist()), math.fsum(gain_n.square().tolist())
        alpha_lk = self.alpha_of(self.free.values, self.start_lk) if self.done else self.start_lk
        beta = float(self.log_beta.values.exp())
        most = float(gain_n.abs().max())
        self.rounds.append(Round(self.done, fitted, held_out, gain, square, most, alpha_lk.tolist(), beta))
        self.save(self.state())
        if self.watch is not None:
            self.watch(curves_of(self.rounds))

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the fit depends on. Shortest decimals represent float64 exactly."""
        return {
            "done": self.done,
            "rounds": [list(each) for each in self.rounds],
            "free": self.free.state(),
            "log_beta": self.log_beta.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.done = state["done"]
        self.rounds = [Round(*each) for each in state["rounds"]]
        self.free.restore(state["free"])
        self.log_beta.restore(state["log_beta"])


def _mean(values_n: Tensor) -> float:
    return math.fsum(values_n.tolist()) / len(values_n)
