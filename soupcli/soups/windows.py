"""Windows over one run: tries the mean of the last N checkpoints for several N on the selecting set.

soup greedy --ckpts 'run/checkpoint-*/' --windows 4,8,16 --decay 1-sqrt --val V

best ← ValAcc(last checkpoint)
for n in sizes, smallest first:
    if ValAcc(mean(last n)) > best then take it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from soupcli.progress import Progress, silent
from soupcli.soups.greedy import Foresee, GreedySoup, unforeseen
from soupcli.soups.trials import Trial, best_of

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate
    from soupcli.mixing.mixture import Mixture


def sizes_tried(sizes: Sequence[int]) -> list[int]:
    """Return the sizes to mix, smallest first, each once. The last checkpoint by itself is always tried."""
    return sorted({size for size in sizes if size > 1})


def windows(
    run: Sequence[Checkpoint],
    sizes: Sequence[int],
    evaluate: Evaluate,
    *,
    mix: Callable[[Sequence[Checkpoint]], Mixture],
    foresee: Foresee = unforeseen,
    progress: Progress = silent,
) -> GreedySoup:
    """Return the best of the last checkpoint and of the mixtures of the last N checkpoints, for each size N.

    `run` is in the order of its steps and at least as long as the largest size. `mix` makes a mixture of a window. Of
    equally good ones the smallest is taken. It costs one evaluation for each size and one for the last checkpoint.
    Raises ValidationError if the last checkpoint's score is not a number.
    """
    trials = [Trial(f"last {size}", mix(run[-size:])) for size in (1, *sizes_tried(sizes))]
    return best_of(
        trials[0], trials[1:], evaluate, candidate=run[-1], phase="windows", foresee=foresee, progress=progress
    )
