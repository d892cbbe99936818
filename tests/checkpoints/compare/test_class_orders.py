"""The order of classes that files beside checkpoints state, compared in as many steps as there are classes."""

from __future__ import annotations

from soupcli.checkpoints.compare.class_orders import contradict

COUNT = 300


class Counted(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def test_steps() -> None:
    """Two lists without a common name are compared in a few steps a name: a file of a stranger's may hold 300,000."""
    one = [Counted("-" * length) for length in range(1, COUNT)]  # separators alone are compared as they are
    other = [Counted("_" * length) for length in range(1, COUNT)]
    assert not contradict(one, other)
    assert COUNT - 1 <= Counted.compared <= 4 * COUNT
    assert contradict(one, [*one[1:], one[0]])
