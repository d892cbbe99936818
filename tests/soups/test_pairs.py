"""Which pairs are measured."""

from __future__ import annotations

import itertools

from soupcli.soups.pairs import choose_pairs


def test_all() -> None:
    """Every pair once, N(N-1)/2 of them."""
    assert choose_pairs(4, None, 0) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert choose_pairs(4, 6, 0) == choose_pairs(4, 60, 3) == choose_pairs(4, None, 0)


def test_drawn() -> None:
    """So many, by the seed, each once."""
    drawn = choose_pairs(20, 30, 1)
    assert len(set(drawn)) == 30 and set(drawn) <= set(itertools.combinations(range(20), 2))
    assert drawn == choose_pairs(20, 30, 1) != choose_pairs(20, 30, 2)
