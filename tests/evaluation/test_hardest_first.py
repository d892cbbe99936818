"""How hard examples are: by how many ingredients got them wrong, among equals by how far off these were."""

from __future__ import annotations

import math

import torch

from soupcli.evaluation.hardest_first import REMEMBERED, WRONG, Difficulty, distance_of, levels_of
from soupcli.metrics.accuracy import correct


def test_wrong_is_wrong() -> None:
    """From the level WRONG on another class has the largest logit; a NaN is as wrong as can be."""
    logits, labels = 4 * torch.randn(500, 5), torch.randint(0, 5, (500,))
    levels = levels_of(distance_of(logits, labels, "classes"), "classes")
    right = correct(logits, labels, among=1).bool()
    assert int(levels[right].max()) < WRONG <= int(levels[~right].min())
    logits[3, 2] = math.nan
    assert levels_of(distance_of(logits, labels, "classes"), "classes")[3] == 255


def test_several_right_classes() -> None:
    """Any of the right ones will do; the filling is none of them."""
    logits = torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, 9.0]])
    distance = distance_of(logits, torch.tensor([[1, 2], [1, -1]]), "several")
    assert distance[0] < -0.9 and distance[1] > 0.9


def test_numbers_and_tokens() -> None:
    """Without classes the level is the place in the set, by error or by likelihood of a token."""
    numbers = distance_of(torch.tensor([[3.0], [0.0], [-9.0]]), torch.tensor([1.0, 0.0, 0.0]), "numbers")
    assert levels_of(numbers, "numbers").tolist() == [128, 0, 255]
    tokens = distance_of(torch.tensor([[8.0, 8.0], [3.0, 1.0], [2.0, 1.0]]), torch.tensor([8, 1, 1]), "tokens")
    assert levels_of(tokens, "tokens").tolist() == [0, 255, 128]


def test_counts_come_first() -> None:
    """Two that are a little wrong are harder than one that is entirely so; each ingredient counts once."""
    difficulty = Difficulty()
    assert difficulty.of_examples() is None
    levels = [[130, 255, 0, 10], [130, 0, 0, 9], [0, 0, 1, 0]]
    for number, level in enumerate([*levels, *levels]):
        difficulty.add([f"runs/{number % 3}"], torch.tensor(level, dtype=torch.uint8))
    found = difficulty.of_examples()
    assert found is not None
    assert found.argsort(descending=True).tolist() == [0, 1, 3, 2]


def test_a_soup_is_expected_to_be_what_its_parts_are() -> None:
    """The soup that shares most members speaks for them, each other member for itself, by their weights."""
    difficulty = Difficulty()
    assert difficulty.expected({"a": 1.0}) is None
    for members, levels in (("a", [250, 0, 0, 0]), ("b", [0, 250, 0, 0]), ("ab", [0, 0, 120, 0]), ("c", [0, 0, 0, 90])):
        difficulty.add(members, torch.tensor(levels, dtype=torch.uint8))

    def expected(**weights: float) -> list[float]:
        found = difficulty.expected(weights)
        assert found is not None
        return [round(float(level), 9) for level in found]

    assert expected(a=1 / 3, b=1 / 3, c=1 / 3) == [0, 0, 80, 30]
    assert expected(a=0.5, c=0.5) == [125, 0, 0, 45]
    assert expected(a=0.5, b=0.5) == [0, 0, 120, 0]
    assert expected(a=0.5, unknown=0.5) == [125, 0, 0, 0]
    counts = difficulty.of_examples()
    assert counts is not None
    assert expected(unknown=1.0) == counts.tolist()


def test_only_so_many_soups_are_remembered() -> None:
    """The first are forgotten first; ingredients never are."""
    difficulty = Difficulty()
    levels = torch.zeros(2, dtype=torch.uint8)
    for number in range(REMEMBERED + 5):
        difficulty.add([f"a{number}"], levels)
        difficulty.add([f"a{number}", "b"], levels)
    assert len(difficulty._soups) == REMEMBERED and len(difficulty._alone) == REMEMBERED + 5
    assert frozenset(["a0", "b"]) not in difficulty._soups
