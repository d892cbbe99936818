"""Chooses the step of a learned soup: divides the set, fits each part, and adds up their held-out losses.

A few dozen held-out examples cannot choose a step. If there are fewer than `ENOUGH`, the set is divided into folds.
Each fold is held out once, from a fit of all others, so that every example contributes to the choice. The soup's
coefficients are the mean of the fits' coefficients at the step with the least total held-out loss. The start is kept
unless the gain over it is more than `KEPT` times its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from soupcli.datasets.holdout import folds_by_class, split_by_class, strata_of
from soupcli.late import torch
from soupcli.progress import Progress, silent
from soupcli.soups.learned.fit import Curves, Fit, FitSplit, Mixed, Round, curves_of
from soupcli.soups.learned.kept_fit import is_state

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.evaluation.labelled_set import LabelledSet
    from soupcli.recipe.methods import Learned

ENOUGH = 200  # held-out examples that choose a step by themselves
KEPT = 1.75  # standard errors of a gain that the start is given up for: of ten steps the best is chosen, which flatters
SURE = 2.5  # of a gain that holds elsewhere too


class States(Protocol):
    """The store of a fit between rounds, so that an interrupted fit goes on."""

    def get(self) -> dict[str, Any] | None:
        """Return the latest state, or None."""

    def put(self, state: dict[str, Any]) -> None:
        """Save a state of plain numbers, texts, lists and mappings."""


class LearnedSoup(NamedTuple):
    """The coefficients after step `curves.steps[kept]` (0: at the start), and their held-out gain."""

    alpha_lk: Tensor
    beta: float
    curves: Curves
    kept: int
    fitted_examples: int
    held_out_examples: int
    examples: int  # that went through the network
    gain: float = 0.0  # of the held-out loss over the start, at the step with the least
    gain_stderr: float = 0.0
    folds: int = 1

    @property
    def warning(self) -> str | None:
        """A warning if the fitted part gained and the held-out part did not, or not surely; else None."""
        (steps, fitted, held_out), kept = self.curves, self.kept
        fell = f"the loss fell from {fitted[0]:.4f} to {fitted[-1]:.4f} on the {self.fitted_examples} fitted examples, "
        outcome = "the start was kept" if kept == 0 else f"step {steps[kept]} was kept"
        gained = f"by {self.gain:.4f} ± {self.gain_stderr:.4f}"
        if fitted[-1] < fitted[0] and held_out[-1] >= held_out[0]:
            ends = f"({held_out[0]:.4f} to {held_out[-1]:.4f})"
            return f"{fell}not on the {self.held_out_examples} held out {ends}: {outcome}"
        if kept == 0 and self.gain > 0:
            return (
                f"the loss fell {gained} on the {self.held_out_examples} held-out examples, maybe by chance: {outcome}"
            )
        if kept and self.gain < SURE * self.gain_stderr:
            return (
                f"the loss fell {gained} on the {self.held_out_examples} held-out examples, which may be chance: on "
                "others the soup may be worse than its start; a larger set tells"
            )
        return None


def learned(
    network: Mixed,
    task: LabelledSet,
    start_lk: Tensor,
    settings: Learned,
    *,
    states: States | None = None,
    watch: Callable[[Curves], None] | None = None,
    progress: Progress = silent,
) -> LearnedSoup:
    """Fit coefficients from `start_lk` on. `states` loads the state of an interrupted fit and saves each round's.

    The result does not depend on interruptions. Raises NetworkError if a loss or a gradient is not finite.
    """
    parts = parts_of(task.labels, settings)
    kept = states.get() if states is not None else None
    if kept is None or not is_state(kept, start_lk.shape, steps=settings.steps, folds=len(parts)):
        kept = {"finished": [], "now": None}
    finished = [[Round(*each) for each in rounds] for rounds in kept["finished"]]
    now, examples = kept["now"], 0
    for part in parts[len(finished) :]:
        before = [[list(each) for each in rounds] for rounds in finished]

        def save(state: dict[str, Any], before: list[list[list[Any]]] = before) -> None:
            if states is not None:
                states.put({"finished": before, "now": state})

        fit = Fit(network, task, start_lk, settings, part, save=save, watch=watch, progress=progress)
        finished.append(fit.run(now))
        now, examples = None, examples + fit.examples
    return chosen(finished, parts, start_lk, examples)


def parts_of(labels: Tensor, settings: Learned) -> list[FitSplit]:
    """Divide the set once, or into folds: as many as requested, or as the held-out part needs.

    Raises ValidationError if a part would be empty.
    """
    labels_n = strata_of(labels, one_class=labels.dim() == 1)
    once = FitSplit(*split_by_class(labels_n, settings.holdout, seed=settings.seed))
    folds = settings.folds
    if folds is None:
        folds = 1 if len(once.held_out) >= ENOUGH else max(2, round(1 / settings.holdout))
    if folds == 1:
        return [once]
    return [FitSplit(*both) for both in folds_by_class(labels_n, folds, seed=settings.seed)]


def chosen(fits: Sequence[Sequence[Round]], parts: Sequence[FitSplit], start_lk: Tensor, examples: int) -> LearnedSoup:
    """Return the step with the least held-out loss over all fits, and the mean of their coefficients there."""
    weights = [len(part.held_out) for part in parts]
    count = sum(weights)
    rounds = [_together(of_step, weights) for of_step in zip(*fits, strict=True)]
    least = min(range(len(rounds)), key=lambda place: rounds[place].held_out)
    gain, error = rounds[least].gain / count, gain_error(rounds[least], count)
    kept = least if gain > KEPT * error else 0
    alpha_lk = torch.tensor(rounds[kept].alpha, dtype=torch.float64) if kept else start_lk
    beta = rounds[kept].beta if kept else 1.0
    sizes = len(parts[0].fitted), count
    return LearnedSoup(alpha_lk, beta, curves_of(rounds), kept, *sizes, examples, gain, error, len(parts))


def gain_error(of: Round, count: int) -> float:
    """Return the standard error of a mean gain over `count` examples.

    Two imagined examples gain and lose as much as any did, because a few dozen seldom include the rare decisive ones.
    """
    centre = of.gain / (count + 2)
    variance = (of.square + 2 * of.most**2) / (count + 2) - centre * centre
    return math.sqrt(max(0.0, variance) / (count + 1)) * (count + 2) / count


def _together(of_step: Sequence[Round], weights: Sequence[int]) -> Round:
    """Combine one step of several fits: means of losses and coefficients, sums of gains."""
    if len(of_step) == 1:
        return of_step[0]
    total = sum(weights)

    def mean(values: Sequence[float]) -> float:
        return math.fsum(weight * value for weight, value in zip(weights, values, strict=True)) / total

    alpha_lk = torch.tensor([each.alpha for each in of_step], dtype=torch.float64).mean(dim=0)
    return Round(
        of_step[0].step,
        math.fsum(each.fitted for each in of_step) / len(of_step),
        mean([each.held_out for each in of_step]),
        math.fsum(each.gain for each in of_step),
        math.fsum(each.square for each in of_step),
        max(each.most for each in of_step),
        alpha_lk.tolist(),
        math.fsum(each.beta for each in of_step) / len(of_step),
    )
