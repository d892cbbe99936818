"""Distances and angles of a family, added up layer by layer, by numpy and by torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.diagnosis import spread
from soupcli.diagnosis.spread import Spread, WeightDistances, groups_of
from soupcli.mixing.arithmetic.arrays import Library
from soupcli.networks.geometry import measure_layers


def family(folder: Path) -> list[dict[str, torch.Tensor]]:
    """A start and four runs of three layers, of which the last run's head is new."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"blocks.0.fc.weight": (30, 20), "blocks.1.fc.weight": (30, 20), "head.weight": (30, 20), "norm": (9,)}
    start = {name: torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    runs = [{n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in start.items()} for _ in range(4)]
    runs[3]["head.weight"] = torch.randn(30, 20, generator=generator, dtype=torch.float64)
    for number, state in enumerate((start, *runs)):
        save_file(state, folder / f"{number}.safetensors")
    return [start, *runs]


def measured(folder: Path, library: Library, *, has_base: bool) -> WeightDistances:
    """What is measured of the family, with its start or without."""
    files = sorted(folder.iterdir())
    checkpoints = [open_checkpoint(file) for file in files[not has_base :]]
    adding = Spread()
    for geometry in measure_layers(
        checkpoints, groups_of(list(checkpoints[0].tensors), checkpoints[0]), library=library
    ):
        adding.add(geometry, has_base=has_base)
    return adding.distances()


@pytest.mark.parametrize("library", [np, torch], ids=["numpy", "torch"])
@pytest.mark.parametrize("together", [1, 1 << 20])
def test_as_whole_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library, together: int) -> None:
    """Lengths, distances and medians are those of the vectors, with the start and without, in rows of any number."""
    monkeypatch.setattr(spread, "TOGETHER", together)
    start, *runs = family(tmp_path)
    found, alone = (measured(tmp_path, library, has_base=has_base) for has_base in (True, False))
    vectors = torch.stack([torch.cat([tensor.flatten() for tensor in run.values()]) for run in runs])
    origin = torch.cat([tensor.flatten() for tensor in start.values()])
    for one in (found, alone):
        np.testing.assert_allclose(one.distance_kk, torch.cdist(vectors, vectors), atol=1e-6)
        np.testing.assert_allclose(one.from_mean_k, (vectors - vectors.mean(dim=0)).norm(dim=1))
        assert one.layers == ["blocks.0", "blocks.1", "head"] and len(one.scatter) == 4
        np.testing.assert_allclose(one.closeness_kk, np.median(np.stack(list(one.angle_lkk)), axis=0))
        assert float(one.closeness_kk.max()) < 15
        out = one.out_of_line
        assert out is not None and (out.layer, out.pair[1], out.others_k) == (2, 3, [1, 1, 1, 3]) and out.angle > 60
    assert found.from_base_k is not None and alone.from_base_k is None
    np.testing.assert_allclose(found.from_base_k, (vectors - origin).norm(dim=1))
    moved = [(run["blocks.1.fc.weight"] - start["blocks.1.fc.weight"]).norm() for run in runs]
    np.testing.assert_allclose(found.moved_lk[1], moved)
    vectors = torch.stack([run["blocks.1.fc.weight"].flatten() for run in runs])
    apart = torch.cdist(vectors, vectors)
    medians = [sorted(row[:k] + row[k + 1 :])[1] for k, row in enumerate(apart.tolist())]
    np.testing.assert_allclose(alone.moved_lk[1], medians)


@pytest.mark.parametrize(("near", "beside"), [(0.001, False), (0.3, True)])
def test_runs_that_hardly_moved(tmp_path: Path, near: float, *, beside: bool) -> None:
    """A run that is still at its start is far from those that moved; one as far from it as they are is another run."""
    generator = torch.Generator().manual_seed(0)
    start, common, other = (torch.randn(40, 30, generator=generator) for _ in range(3))
    runs = [start + near * other + 0.001 * torch.randn(40, 30, generator=generator) for _ in range(2)]
    runs += [start + 0.3 * common + 0.1 * torch.randn(40, 30, generator=generator) for _ in range(4)]
    for number, weight in enumerate((start, *runs)):
        save_file({"fc.weight": weight}, tmp_path / f"{number}.safetensors")
    assert measured(tmp_path, np, has_base=True).base_is_beside_them is beside
