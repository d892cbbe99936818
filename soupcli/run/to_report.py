"""Turns scores, ingredients, decisions and gates into parts of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.checkpoint import Checkpoint, total_bytes
from soupcli.checkpoints.groups import group_paths, group_weights
from soupcli.evaluation.score import is_higher_better
from soupcli.report.comparisons import GateResult
from soupcli.report.scores import Ingredient, Member, MetricScore
from soupcli.report.soups import Coefficients, Search, SearchOrder, SearchStep, Strategy

if TYPE_CHECKING:
    from soupcli.checkpoints.hashes import ContentHashes
    from soupcli.evaluation.gates import GateOutcome
    from soupcli.evaluation.score import Score
    from soupcli.soups.decision import Step as Decision
    from soupcli.soups.learned.learned import Layered
    from soupcli.soups.search import SearchResult


def scores_to_report(scores: Mapping[str, Score]) -> dict[str, dict[str, MetricScore]]:
    """Return scores by set, for the report."""
    return {
        name: {metric: MetricScore(value=v.value, stderr=v.stderr, n=v.n) for metric, v in score.metrics.items()}
        for name, score in scores.items()
    }


def lower_is_better(score: Score) -> list[str]:
    """Return the metrics of a score for which lower is better."""
    return sorted(metric for metric in score.metrics if not is_higher_better(metric, score))


def ingredient_to_report(
    checkpoint: Checkpoint, scores: Mapping[str, Score], hashes: ContentHashes | None
) -> Ingredient:
    """Return a checkpoint and its scores, for the report. `hashes` None: for one that is shown only as text.

    The ingredient then has no hashes and no members, and is never written: its files need not be read for it.
    """
    known: dict[str, Any] = {
        "path": str(checkpoint.path),
        "bytes": total_bytes(checkpoint),
        "scores": scores_to_report(scores),
        "revision": checkpoint.origin.revision,
        "format": checkpoint.origin.format,
        "key": checkpoint.origin.key,
        "trainer_metrics": dict(checkpoint.origin.metrics),
        "notes": list(checkpoint.origin.notes),
    }
    if hashes is None:
        return Ingredient.model_construct(**known)
    members = [
        Member(path=str(one.path), hash=hashes.of(one), bytes=total_bytes(one), revision=one.origin.revision)
        for one in checkpoint.members
    ]
    return Ingredient(**known, hash=hashes.of(checkpoint), members=members)


def search_to_report(strategy: Strategy, found: SearchResult) -> dict[str, Any]:
    """Return the report's keys `steps` and `search`."""
    orders = [
        SearchOrder(
            order=[str(ingredient.path) for ingredient in order],
            members=group_paths(soup.mixture.members, order),
            score=soup.score.value,
            evaluations=len(soup.steps),
        )
        for order, soup in found.soups
    ]
    several = orders if len(orders) > 1 else []
    return {
        "steps": [_step_to_report(step, found.soups[0][0]) for step in found.soup.steps],
        "search": Search(strategy=strategy, evaluations=found.evaluations, orders=several),
    }


def _step_to_report(step: Decision, ingredients: Sequence[Checkpoint]) -> SearchStep:
    return SearchStep(
        candidate=str(step.candidate.path),
        score=step.score,
        threshold=step.threshold,
        accepted=step.accepted,
        reason=step.reason,
        examples=step.examples,
        seconds=round(step.seconds, 3),
        action=step.action,
        members=group_paths(step.members, ingredients),
        weights=_unlike(group_weights(step.members, step.weights, ingredients)) if step.weights else [],
        bound=step.bound,
    )


def _unlike(weights: list[float]) -> list[float]:
    return weights if len(set(weights)) > 1 else []


def coefficients_to_report(layered: Layered) -> Coefficients:
    """Return the report's key `soup.coefficients`."""
    return Coefficients(
        layers=layered.layers,
        members=[str(member.path) for member in layered.members],
        alpha=layered.alpha_lk,
        tensors=layered.tensors,
        scaled=layered.scaled,
    )


def gate_to_report(verdict: GateOutcome, soup: str) -> GateResult:
    """Return the outcome of a gate for the soup at the path `soup`, for the report."""
    return GateResult(
        soup=soup,
        set=verdict.gate.set,
        metric=verdict.metric,
        gate=verdict.gate.text,
        key=verdict.gate.key,
        value=verdict.value,
        needed=verdict.needed,
        met=verdict.met,
        reason=verdict.reason,
    )
