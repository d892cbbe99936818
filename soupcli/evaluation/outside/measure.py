"""Sets whose examples are not seen here: code and commands of the user, and tasks of lm-evaluation-harness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.datasets.load import kind_of

if TYPE_CHECKING:
    from soupcli.evaluation.outside.lm_eval import LoadedTasks
    from soupcli.evaluation.runner import NetworkRunner
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.recipe.sets import SetSpec


def measure(spec: SetSpec, weights: Mixture, metric: str, runner: NetworkRunner, tasks: LoadedTasks) -> Score:
    """The score of `weights` on a set; `metric` selects there."""
    of_kind = kind_of(spec).measure
    assert of_kind is not None, f"{type(spec).__name__} shows examples"
    score: Score = of_kind(spec, weights, metric, runner, tasks)
    return score
