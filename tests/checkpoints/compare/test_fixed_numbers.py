"""Numbers that no training changes and no mean fits: sums with their counts, anchors, schedules, sizes, orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from soupcli.checkpoints.compare.fixed_numbers import different_sums, different_tables, few_whole_numbers
from soupcli.checkpoints.compare.products import check_products
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

EVERYTHING = TensorFilter()


def family(folder: Path, *states: dict[str, Tensor]) -> list[Checkpoint]:
    """Checkpoints with these tensors."""
    for number, state in enumerate(states):
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / f"{number}.safetensors")
    return [open_checkpoint(folder / f"{number}.safetensors") for number in range(len(states))]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape)


@pytest.mark.parametrize(
    ("name", "count", "pattern"),
    [
        ("norm.m2", "norm.count", "norm.*"),
        ("obs_rms.S", "obs_rms.n", "obs_rms.*"),
        ("x.scaler.sum_sq", "x.scaler.num_samples", "x.scaler.*"),
        ("obs_m2", "obs_count", "obs*"),
        ("n._acc_sum", "n._acc_count", "n._acc*"),
        ("sum", "count", "sum"),
    ],
)
def test_sums(tmp_path: Path, name: str, count: str, pattern: str) -> None:
    """Sums over other counts of examples are said, with the flag that takes both from one."""
    mean = name.rpartition(".")[0] + ".mean"
    states = [{name: drawn(6).abs() * n, count: torch.tensor(n), mean: drawn(6)} for n in (1000, 3000)]
    said = different_sums(family(tmp_path, *states), EVERYTHING)
    assert said is not None
    assert said.startswith(f"{name!r} is a sum over examples") and f"({count}: 1000 | 3000)" in said
    assert f"--take '{pattern}'" in said
    assert different_sums(family(tmp_path, *states), TensorFilter(take=(pattern,))) is None


@pytest.mark.parametrize(
    "states",
    [
        [{"n.sum": drawn(6), "n.count": torch.tensor(float(count))} for count in (1000, 3000)],  # averaged too
        [{"n.sum": drawn(6), "n.count": torch.tensor(count)} for count in (1000, 1001)],
        [{"n.sum": drawn(6), "n.count": torch.tensor(1000)} for _ in range(2)],
        [{"bn.running_var": drawn(6), "bn.num_batches_tracked": torch.tensor(count)} for count in (1, 3)],
        [{"a.sum": drawn(6), "b.count": torch.tensor(count)} for count in (1, 3)],
        [{"fc.S": drawn(6), "fc.n": torch.tensor(count)} for count in (1, 3)],  # no mean beside
    ],
)
def test_no_sums(tmp_path: Path, states: list[dict[str, Tensor]]) -> None:
    """Counts that are averaged as the sums are, that are the same, or of other things, are right."""
    assert different_sums(family(tmp_path, *states), EVERYTHING) is None


def frequencies(base: float) -> Tensor:
    return base ** (-torch.arange(0, 32) / 32)


TABLES = {
    "model.24.anchors": [drawn(3, 3, 2).abs() + 1 for _ in range(2)],
    "head.anchor_generator.cell_anchors.0": [drawn(3, 4) for _ in range(2)],
    "priors": [drawn(5000, 4).abs() for _ in range(2)],
    "betas": [torch.linspace(1e-4, last, 1000) for last in (0.02, 0.03)],
    "diffusion._sqrt_one_minus_alphas_cumprod": [torch.linspace(0, last, 1000) for last in (0.9, 1)],
    "front.mel_scale.fb": [drawn(201, 40).abs() for _ in range(2)],
    "rotary_emb.inv_freq": [frequencies(base) for base in (1e4, 5e5)],
    "layers.0.grid": [torch.linspace(-1, last, 12).expand(24, 12) for last in (1, 1.5)],
    "critic.support": [torch.linspace(-10, last, 51) for last in (10, 20)],
}


@pytest.mark.parametrize("name", list(TABLES))
def test_tables(tmp_path: Path, name: str) -> None:
    """What is computed before a training is said to differ, unless it is not mixed."""
    found = family(tmp_path, *({name: table, "w": drawn(4, 4)} for table in TABLES[name]))
    said = different_tables(found, EVERYTHING)
    assert said is not None and said.startswith(f"{name!r} differs: anchors, schedules, filters")
    assert different_tables(found, TensorFilter(exclude=(name,))) is None


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("rotary_emb.inv_freq", [frequencies(1e4), frequencies(1e4).bfloat16()]),
        ("model.24.anchors", [torch.ones(3, 2), torch.ones(3, 2)]),
        ("loss.sigmas", [torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.2, 0.3, 0.5])]),  # trained weights of tasks
        ("rbf.betas", [torch.linspace(1, 2, 20)[torch.randperm(20)] for _ in range(2)]),
        ("blocks.0.window_attention.weight", [drawn(8, 8) for _ in range(2)]),
    ],
)
def test_no_tables(tmp_path: Path, name: str, tables: list[Tensor]) -> None:
    """Tables that differ by their rounding, and trained numbers with such names, are averaged as ever."""
    assert different_tables(family(tmp_path, *({name: table} for table in tables)), EVERYTHING) is None


def test_whole_numbers(tmp_path: Path) -> None:
    """A few numbers that are whole in all are sizes or codes: their mean is said. Counts and begun biases are not."""
    sizes = [{"image_size": torch.tensor([size, 224.0]), "w": drawn(4, 4)} for size in (224, 256)]
    said = few_whole_numbers(family(tmp_path, *sizes), EVERYTHING)
    assert said is not None and "'image_size' holds whole numbers" in said and "--take 'image_size'" in said
    for healthy in (
        [{"vq.cluster_size": torch.tensor([1.0, 5.0 + n, 2.0])} for n in range(2)],
        [{"head.bias": torch.zeros(4)}, {"head.bias": drawn(4)}],
        [{"gain": torch.ones(4)}, {"gain": torch.zeros(4)}],
        [{"scale": torch.tensor(float(n))} for n in range(2)],
    ):
        assert few_whole_numbers(family(tmp_path, *healthy), EVERYTHING) is None


@pytest.mark.parametrize("name", ["mix.channel", "labels"])
def test_orders(tmp_path: Path, name: str) -> None:
    """Two orders in floating numbers are refused, however few: no training leaves each number from 0 once."""
    orders = [{name: torch.tensor(order)} for order in ([0.0, 2, 1, 3, 4], [4.0, 2, 1, 3, 0])]
    with pytest.raises(MixError, match=f"tensor '{name}' is an order of channels"):
        check_products(family(tmp_path, *orders), EVERYTHING)
    check_products(family(tmp_path, *orders), TensorFilter(take=(name,)))
    check_products(family(tmp_path, orders[0], {name: torch.tensor([0.0, 2, 1, 3, 5])}), EVERYTHING)
