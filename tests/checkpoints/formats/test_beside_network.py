"""What lies beside the network in a saved object, in those of strangers too."""

from __future__ import annotations

from soupcli.checkpoints.formats.beside_network import parts_beside


def test_one_object_in_many_places() -> None:
    """A small pickle may hold a few dicts in 10^9 places: training state in them is named once."""
    inner: dict[str, object] = {"optimizer": {"state": {}, "param_groups": []}, "names": ["a"]}
    for _ in range(4):
        inner = {f"part {number}": inner for number in range(200)}
    found = parts_beside({"net": {"weight": 1.0, "config": inner}}, "*", lambda value: isinstance(value, float))
    assert [part.name for part in found] == ["net.config.part 0.part 0.part 0.part 0.optimizer"]
