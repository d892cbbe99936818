"""Searches and mixing coefficients as they stand in the report."""

from __future__ import annotations

from typing import Any

from soupcli.report.soups import Coefficients, Order, Search, Step, Strategy
from soupcli.soups.deciding import Step as Decision
from soupcli.soups.layered import Layered
from soupcli.soups.search import Found


def reported_search(strategy: Strategy, found: Found) -> dict[str, Any]:
    """The keys `steps` and `search`."""
    orders = [
        Order(
            order=[str(ingredient.path) for ingredient in order],
            members=[str(member.path) for member in soup.mixture.members],
            score=soup.score.value,
            evaluations=len(soup.steps),
        )
        for order, soup in found.soups
    ]
    several = orders if len(orders) > 1 else []
    return {
        "steps": [_reported(step) for step in found.soup.steps],
        "search": Search(strategy=strategy, evaluations=found.evaluations, orders=several),
    }


def _reported(step: Decision) -> Step:
    return Step(
        candidate=str(step.candidate.path),
        score=step.score,
        threshold=step.threshold,
        accepted=step.accepted,
        reason=step.reason,
        examples=step.examples,
        seconds=round(step.seconds, 3),
        action=step.action,
        members=[str(member.path) for member in step.members],
        bound=step.bound,
    )


def reported_coefficients(layered: Layered) -> Coefficients:
    """The key `soup.coefficients`."""
    return Coefficients(
        layers=layered.layers,
        members=[str(member.path) for member in layered.members],
        alpha=layered.alpha_lk,
        tensors=layered.tensors,
        scaled=layered.scaled,
    )
