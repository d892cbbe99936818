"""A head whose rows lie in another order is told by its weights; heads that have nothing in common are not."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.compare import head_rows
from soupcli.checkpoints.compare.head_rows import moved_rows
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

EVERYTHING = TensorFilter()


def told(folder: Path, *heads: Tensor, selection: TensorFilter = EVERYTHING, names: str = "") -> str | None:
    """What is said of checkpoints with these heads on one body."""
    for number, head in enumerate(heads):
        (folder / f"r{number}").mkdir(parents=True)
        save_file({"body.weight": torch.eye(50), "fc.weight": head.contiguous()}, folder / f"r{number}/m.safetensors")
        if names:
            (folder / f"r{number}/classes.txt").write_text(names)
    return moved_rows([open_checkpoint(folder / f"r{number}") for number in range(len(heads))], selection)


@pytest.mark.parametrize(("classes", "features", "noise"), [(10, 768, 1.5), (10, 64, 0.5), (3, 8, 0.1), (2, 768, 1.0)])
def test_moved_rows(tmp_path: Path, classes: int, features: int, noise: float) -> None:
    """Rows in another order are named, although each run has noise of its own; in the same order they are not."""
    torch.manual_seed(0)
    rows = torch.randn(classes, features)
    one, other = (rows + noise * torch.randn(classes, features) for _ in range(2))
    order = torch.arange(classes).roll(-1)
    found = told(tmp_path / "moved", one, one, other[order.argsort()])
    assert found is not None
    assert "r2: rows of 'fc.weight' are like those of" in found
    assert f"in another order, {', '.join(map(str, order[:6].tolist()))}" in found
    assert told(tmp_path / "same", one, other) is None
    assert told(tmp_path / "left", one, other[order], selection=TensorFilter(exclude=("fc.*",))) is None
    assert told(tmp_path / "named", one, other[order], names="\n".join(f"c {n}" for n in range(classes))) is None


def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two heads are held at once, in float32, and pieces of one: what is found does not depend on the pieces."""
    torch.manual_seed(0)
    rows = torch.randn(100, 4096)
    found = told(tmp_path, rows, rows.roll(1, 0), rows)
    monkeypatch.setattr(head_rows, "PIECE", 5000)
    tracemalloc.start()
    again = moved_rows([open_checkpoint(tmp_path / f"r{number}") for number in range(3)], EVERYTHING)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None
    assert again == found
    assert peak < 2.5 * rows.nbytes


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_heads_of_their_own(tmp_path: Path, classes: int) -> None:
    """Heads that were made at random have no order in common, whatever the seed."""
    torch.manual_seed(0)
    heads = [torch.randn(classes, 32) for _ in range(60)]
    assert told(tmp_path, *heads) is None


def test_numbers_beyond_float32(tmp_path: Path) -> None:
    """Heads in float64 whose numbers no float32 holds say nothing of any order, and nothing warns of them."""
    heads = [torch.full((3, 4), 1e300, dtype=torch.float64), torch.full((3, 4), 1e308, dtype=torch.float64)]
    assert told(tmp_path, *heads) is None


def test_heads_that_learned_little(tmp_path: Path) -> None:
    """Few steps from zero make rows of few directions, whichever class was seen more often: that is no order."""
    torch.manual_seed(0)
    mean, few = torch.randn(64), torch.randn(3, 768)
    binary = [torch.stack([-sign * mean, sign * mean]) for sign in (1, -1)]
    three = [
        torch.tensor(rows)[:, None] * mean + 0.1 * torch.randn(3, 64) for rows in ([2.0, -1, -1.2], [2.0, -1.2, -1])
    ]
    low = [torch.randn(4, 3) @ few for _ in range(40)]
    for number, heads in enumerate((binary, three, low)):
        assert told(tmp_path / str(number), *heads) is None
