"""Recipe 1 of the paper in thirty plain lines over whole state dicts, against which `soup greedy` is held."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

State = dict[str, Tensor]


class Reference(NamedTuple):
    """What Recipe 1 gives: (path, score) best first, (path, score, threshold, accepted) in order, members, tensors."""

    ranking: list[tuple[str, float]]
    steps: list[tuple[str, float, float | None, bool]]
    members: list[str]
    state: State


def mean(states: list[State]) -> State:
    """The exact mean in float64, rounded once to the states' own dtype; what is no float is the first state's."""
    sums = {name: torch.stack([state[name].double() for state in states]).sum(dim=0) for name in states[0]}
    return {
        name: (sums[name] / len(states)).to(tensor.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in states[0].items()
    }


def recipe_1(
    states: dict[str, State],
    score: Callable[[State], float],
    *,
    higher: bool = True,
    accept: str = ">=",
    min_delta: float = 0.0,
) -> Reference:
    """Sort by score, best first (ties in the order of paths); start from the best; keep whatever does no harm."""
    sign = 1 if higher else -1
    alone = {path: score(state) for path, state in states.items()}
    ranking = sorted(alone, key=lambda path: (-sign * alone[path], path))
    members, soup_score = ranking[:1], alone[ranking[0]]
    steps: list[tuple[str, float, float | None, bool]] = [(ranking[0], soup_score, None, True)]
    for path in ranking[1:]:
        candidate_score = score(mean([states[member] for member in [*members, path]]))
        threshold = soup_score + sign * min_delta
        gain = sign * (candidate_score - threshold)
        accepted = gain >= 0 if accept == ">=" else gain > 0
        steps.append((path, candidate_score, threshold, accepted))
        if accepted:
            members, soup_score = [*members, path], candidate_score
    return Reference([(path, alone[path]) for path in ranking], steps, members, mean([states[m] for m in members]))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Right answers over all."""
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood."""
    return float(torch.nn.functional.cross_entropy(logits.double(), labels))
